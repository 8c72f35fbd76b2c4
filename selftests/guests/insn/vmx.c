// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of INVVPID and INVEPT only: EPT pointers, capabilities that
 * L1 lacks, and no current VMCS.
 */
#include "groups.h"

/* IA32_VMX_EPT_VPID_CAP */
#define CAP_WALK4		BIT_ULL(6)
#define CAP_WALK5		BIT_ULL(7)
#define CAP_UC			BIT_ULL(8)
#define CAP_WB			BIT_ULL(14)
#define CAP_INVEPT		BIT_ULL(20)
#define CAP_AD			BIT_ULL(21)
#define CAP_INVEPT_CONTEXT	BIT_ULL(25)
#define CAP_INVEPT_ALL		BIT_ULL(26)
#define CAP_INVVPID		BIT_ULL(32)
#define CAP_INVVPID_TYPE(t)	BIT_ULL(40 + (t))

#define EPTP_AD			BIT_ULL(6)
/* Secondary controls, among the bits that may be 1. */
#define MAY_EPT			BIT_ULL(32 + 1)
#define MAY_VPID		BIT_ULL(32 + 5)

static void eptp(struct machine *m, u64 value, u64 type, const char *name, u32 want)
{
	struct test test = { .name = name, TYPE(type), DESC2(value, 0), .want = want };

	try(m, INVEPT, &test);
}

static void memory_types(struct machine *m, u64 caps)
{
	char name[40];
	u64 i;

	for (i = 0; i < 8; i++) {
		bool good = i == 6 ? caps & CAP_WB : i == 0 && caps & CAP_UC;

		snprintf(name, sizeof(name), "memory type %lu", i);
		eptp(m, (good_eptp() & ~7ull) | i, 1, name, good ? OK : VMFAIL);
	}
}

static void walk_lengths(struct machine *m, u64 caps)
{
	char name[40];
	u64 i;

	for (i = 0; i < 8; i++) {
		bool good = i == 3 ? caps & CAP_WALK4 : i == 4 && caps & CAP_WALK5;

		snprintf(name, sizeof(name), "%lu levels", i + 1);
		eptp(m, (good_eptp() & ~0x38ull) | i << 3, 1, name, good ? OK : VMFAIL);
	}
}

/* Flip one bit above bit 5: A/D, reserved, address, reserved. */
static void eptp_bits(struct machine *m, u64 caps)
{
	int limit = max_phys(m), bit;
	char name[40];

	for (bit = 6; bit < 64; bit++) {
		bool good = bit == 6 ? caps & CAP_AD : bit >= 12 && bit < limit;

		snprintf(name, sizeof(name), "bit %d of the EPTP", bit);
		eptp(m, good_eptp() ^ BIT_ULL(bit), 1, name, good ? OK : VMFAIL);
	}
}

static const struct test invept_descriptors[] = {
	{ "type 1, EPTP 0", TYPE(1), DESC2(0, 0), .want = VMFAIL },
	{ "type 1, EPTP of ones", TYPE(1), DESC2(-1ul, 0), .want = VMFAIL },
	{ "type 1, a table at 0", TYPE(1), DESC2(0x1e, 0), .want = OK },
	{ "type 2, EPTP 0", TYPE(2), DESC2(0, 0), .want = OK },
	{ "type 2, EPTP of ones", TYPE(2), DESC2(-1ul, 0), .want = OK },
	{ "type 2, all ones", TYPE(2), DESC2(-1ul, -1ul), .want = OK },
	{ "type 2, only reserved bits", TYPE(2), DESC2(0xf80, 0), .want = OK },
	{ "type 0, EPTP of ones", TYPE(0), DESC2(-1ul, 0), .want = VMFAIL },
	{ "type 3, EPTP of ones", TYPE(3), DESC2(-1ul, 0), .want = VMFAIL },
	{ }
};

/* KVM does not check the reserved quadword, since some systems leave it dirty. */
static void second_quadword(struct machine *m)
{
	static const u64 values[] = { 1, 0xfff, BIT_ULL(47), BIT_ULL(63), -1ul };
	struct test test = { .typed = true, .described = true, .want = OK };
	char name[60];
	int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		for (test.type = 1; test.type <= 2; test.type++) {
			snprintf(name, sizeof(name), "type %lu, second quadword %#lx", test.type,
				 values[i]);
			test.name = name;
			test.desc[0] = good_eptp();
			test.desc[1] = values[i];
			try(m, INVEPT, &test);
		}
	}
}

void invept_descriptor(struct machine *m)
{
	u64 caps = vcpu_get_msr(m->vcpu, MSR_IA32_VMX_EPT_VPID_CAP);

	memory_types(m, caps);
	walk_lengths(m, caps);
	eptp_bits(m, caps);
	try_all(m, INVEPT, invept_descriptors);
	second_quadword(m);
}

/* Try all types with a capability or a control missing. */
static void each_type(struct machine *m, enum op insn, const char *what, u32 good, u32 refusal)
{
	struct test test = { TYPE(0) };
	char name[80];

	for (test.type = 0; test.type < 6; test.type++) {
		snprintf(name, sizeof(name), "type %lu, L1 has %s", test.type, what);
		test.name = name;
		test.want = good & BIT(test.type) ? OK : refusal;
		try(m, insn, &test);
	}
}

static const struct lack {
	const char *what;
	enum op insn;
	u64 caps;		/* capabilities that L1 lacks */
	u64 controls;		/* secondary controls that L1 lacks */
	u32 good;		/* types that L1 has */
	u32 refusal;
} lacks[] = {
	{ "all of INVVPID", INVVPID, 0, 0, 0xf, VMFAIL },
	{ "no INVVPID", INVVPID, CAP_INVVPID, 0, 0, UD },
	{ "no VPID", INVVPID, 0, MAY_VPID, 0, UD },
	{ "no INVVPID of type 0", INVVPID, CAP_INVVPID_TYPE(0), 0, 0xe, VMFAIL },
	{ "no INVVPID of type 1", INVVPID, CAP_INVVPID_TYPE(1), 0, 0xd, VMFAIL },
	{ "no INVVPID of type 2", INVVPID, CAP_INVVPID_TYPE(2), 0, 0xb, VMFAIL },
	{ "no INVVPID of type 3", INVVPID, CAP_INVVPID_TYPE(3), 0, 0x7, VMFAIL },
	{ "INVVPID of no type", INVVPID, 0xf * CAP_INVVPID_TYPE(0), 0, 0, VMFAIL },
	{ "INVVPID, but no INVEPT", INVVPID, CAP_INVEPT, 0, 0xf, VMFAIL },
	{ "INVVPID, but no EPT", INVVPID, 0, MAY_EPT, 0xf, VMFAIL },
	{ "all of INVEPT", INVEPT, 0, 0, 0x6, VMFAIL },
	{ "no INVEPT", INVEPT, CAP_INVEPT, 0, 0, UD },
	{ "no EPT", INVEPT, 0, MAY_EPT, 0, UD },
	{ "no INVEPT of type 1", INVEPT, CAP_INVEPT_CONTEXT, 0, 0x4, VMFAIL },
	{ "no INVEPT of type 2", INVEPT, CAP_INVEPT_ALL, 0, 0x2, VMFAIL },
	{ "INVEPT of no type", INVEPT, CAP_INVEPT_CONTEXT | CAP_INVEPT_ALL, 0, 0, VMFAIL },
	{ "no write-back EPT", INVEPT, CAP_WB, 0, 0x4, VMFAIL },
	{ "no EPT of four levels", INVEPT, CAP_WALK4, 0, 0x4, VMFAIL },
	{ "INVEPT, but no INVVPID", INVEPT, CAP_INVVPID, 0, 0x6, VMFAIL },
	{ "INVEPT, but no VPID", INVEPT, 0, MAY_VPID, 0x6, VMFAIL },
};

/* Enter VMX operation with fewer capabilities, which KVM only allows for a new vCPU. */
static void enter_without(struct machine *m, u64 caps, u64 controls)
{
	machine_close(m);
	machine_open(m, true);
	caps = vcpu_get_msr(m->vcpu, MSR_IA32_VMX_EPT_VPID_CAP) & ~caps;
	controls = vcpu_get_msr(m->vcpu, MSR_IA32_VMX_PROCBASED_CTLS2) & ~controls;
	vcpu_set_msr(m->vcpu, MSR_IA32_VMX_EPT_VPID_CAP, caps);
	vcpu_set_msr(m->vcpu, MSR_IA32_VMX_PROCBASED_CTLS2, controls);
	enter_vmx(m);
}

static void without(struct machine *m, enum op insn)
{
	const struct lack *lack;

	for (lack = lacks; lack < lacks + ARRAY_SIZE(lacks); lack++) {
		if (lack->insn != insn || (lack->controls & MAY_EPT && !m->ept))
			continue;
		enter_without(m, lack->caps, lack->controls);
		each_type(m, insn, lack->what, lack->good, lack->refusal);
	}
}

void invvpid_caps(struct machine *m)
{
	without(m, INVVPID);
}

void invept_caps(struct machine *m)
{
	without(m, INVEPT);
	enter_without(m, CAP_AD, 0);
	eptp(m, good_eptp() | EPTP_AD, 1, "EPTP with A/D, L1 has none", VMFAIL);
	eptp(m, good_eptp() | EPTP_AD, 2, "EPTP with A/D, type 2, L1 has none", OK);
}

/* Without a current VMCS a failure has no error number, and sets CF instead of ZF. */
static const struct test no_vmcs[] = {
	{ "type 1", TYPE(1), .want = OK },
	{ "type 2", TYPE(2), .want = OK },
	{ "type 5", TYPE(5), .want = VMFAIL_INVALID },
	{ "type 32", TYPE(32), .want = VMFAIL_INVALID },
	{ "type 2^32", TYPE(BIT_ULL(32)), .want = VMFAIL_INVALID },
	{ "type 1, descriptor of ones", TYPE(1), DESC2(-1ul, -1ul), .want = VMFAIL_INVALID },
	{ "type 1, descriptor of zeros", TYPE(1), DESC2(0, 0), .want = VMFAIL_INVALID },
	{ "type 5, page not present", TYPE(5), .at = WINDOW + 0x100000, .want = VMFAIL_INVALID },
	{ "page not present", .at = WINDOW + 0x100000, .want = PF(0) },
	{ "not canonical", .at = 0x800000000000, .want = GP0 },
	{ "user", .user = true, .want = GP0 },
	{ "lock", .lock = true, .want = UD },
	{ }
};

static const struct test no_vmcs_vpid[] = {
	{ "type 0", TYPE(0), .want = OK },
	{ "type 3", TYPE(3), .want = OK },
	{ "type 0, VPID 0", TYPE(0), DESC2(0, 0), .want = VMFAIL_INVALID },
	{ "type 3, VPID 0", TYPE(3), DESC2(0, 0), .want = VMFAIL_INVALID },
	{ "type 2, VPID 65536", TYPE(2), DESC2(0x10000, 0), .want = VMFAIL_INVALID },
	{ "type 0, not canonical", TYPE(0), DESC2(1, BIT_ULL(63)), .want = VMFAIL_INVALID },
	{ }
};

static const struct test no_vmcs_ept[] = {
	{ "type 0", TYPE(0), .want = VMFAIL_INVALID },
	{ "type 3", TYPE(3), .want = VMFAIL_INVALID },
	{ "type 1, memory type 1", TYPE(1), DESC2(EPT_ROOT | 0x19, 0), .want = VMFAIL_INVALID },
	{ "type 1, reserved bit", TYPE(1), DESC2(EPT_ROOT | 0x81e, 0), .want = VMFAIL_INVALID },
	{ "type 2, descriptor of ones", TYPE(2), DESC2(-1ul, -1ul), .want = OK },
	{ }
};

static const struct test no_vmcs32[] = {
	{ "good", .want = OK },
	{ "type 5", TYPE(5), .want = VMFAIL_INVALID },
	{ "descriptor of ones", DESC2(-1ul, -1ul), .want = VMFAIL_INVALID },
	{ }
};

void invvpid_no_vmcs(struct machine *m)
{
	clear_vmcs_page(m);
	try_all(m, INVVPID, no_vmcs);
	try_all(m, INVVPID, no_vmcs_vpid);
	in_mode(m, INVVPID, PROT32, no_vmcs32);
}

void invept_no_vmcs(struct machine *m)
{
	clear_vmcs_page(m);
	try_all(m, INVEPT, no_vmcs);
	try_all(m, INVEPT, no_vmcs_ept);
	in_mode(m, INVEPT, PROT32, no_vmcs32);
}
