// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of the privilege level and the modes that the instructions
 * need, and of the order of faults.
 */
#include "groups.h"

#define HOLE		0x800000000000
#define UNMAPPED	(WINDOW + 0x100000)
#define FORM(...)	.form = { __VA_ARGS__ }
#define DIRECT		FORM(.direct = true, .base = BX)
#define USER		.user = true
#define LOCK		.lock = true
/* The emulated CPU exits for INVPCID before it checks the CPL, and C does not check it. */
#define CPL(end)	GAP("cpl", end)

static const struct test invpcid_user[] = {
	{ "user", USER, .want = GP0, CPL(OK) },
	{ "user, type 0", USER, TYPE(0), .want = GP0, CPL(OK) },
	{ "user, type 1", USER, TYPE(1), .want = GP0, CPL(OK) },
	{ "user, type 3", USER, TYPE(3), .want = GP0, CPL(OK) },
	{ "user, type 4", USER, TYPE(4), .want = GP0 },
	{ "user, reserved bits", USER, DESC2(-1ul, 0), .want = GP0 },
	{ "user, operand not mapped", USER, .at = UNMAPPED, .want = GP0, CPL(PF(4)) },
	{ "user, operand for the supervisor", USER, .at = DESC, .want = GP0, CPL(PF(5)) },
	{ "user, flags of any level", USER, .rflags = X86_EFLAGS_AC, .want = GP0, CPL(OK) },
	{ }
};

static const struct test invpcid_order[] = {
	{ "reserved bits, page not present", DESC2(-1ul, 0), .at = UNMAPPED, .want = PF(0) },
	{ "type 4, page not present", TYPE(4), .at = UNMAPPED, .want = PF(0) },
	{ "type 4, not canonical by rsp", TYPE(4), .at = HOLE, FORM(.base = SP), .want = SS0 },
	{ "type 4, reserved bits", TYPE(4), DESC2(-1ul, 0), .want = GP0 },
	{ "type 2, page not present", TYPE(2), .at = UNMAPPED, .want = PF(0) },
	{ "type 3, page not present", TYPE(3), .at = UNMAPPED, .want = PF(0) },
	{ }
};

/* Encodings that raise #UD, for INVPCID, INVVPID and INVEPT in protected and long mode. */
static const struct test encodings[] = {
	{ "a register as operand", DIRECT, .want = UD },
	{ "rax as operand", FORM(.direct = true, .base = AX), .want = UD },
	{ "lock", LOCK, .want = UD },
	{ "lock, a register as operand", LOCK, DIRECT, .want = UD },
	{ "lock, type 5", LOCK, TYPE(5), .want = UD },
	{ "lock, operand not mapped", LOCK, .at = UNMAPPED, .want = UD },
	{ "lock at CPL 3", LOCK, USER, .want = UD },
	{ "a register as operand at CPL 3", DIRECT, USER, .want = UD },
	{ }
};

static void encodings_in(struct machine *m, enum op insn)
{
	in_mode(m, insn, LONG, encodings);
	in_mode(m, insn, COMPAT, encodings);
	in_mode(m, insn, PROT32, encodings);
	in_mode(m, insn, PROT16, encodings);
}

static const struct test vm86[] = {
	{ "vm86", .want = GP0 },
	{ "vm86, type 4", TYPE(4), .want = GP0 },
	{ }
};

void invpcid_privilege(struct machine *m)
{
	in_mode(m, INVPCID, LONG, invpcid_user);
	in_mode(m, INVPCID, COMPAT, invpcid_user);
	in_mode(m, INVPCID, PROT32, invpcid_user);
	try_all(m, INVPCID, invpcid_order);
	encodings_in(m, INVPCID);
	/*
	 * INVPCID is legal in real mode, but has no case there: without EPT, KVM runs real
	 * mode as vm86 and emulates faulting instructions, and KVM's emulator has no INVPCID.
	 */
	in_mode(m, INVPCID, VM86, vm86);
}

/* In VMX operation. */
static const struct test vmx_user[] = {
	{ "user", USER, .want = GP0 },
	{ "user, type 2", USER, TYPE(2), .want = GP0 },
	{ "user, type 5", USER, TYPE(5), .want = GP0 },
	{ "user, type 2^32", USER, TYPE(BIT_ULL(32)), .want = GP0 },
	{ "user, reserved bits", USER, DESC2(-1ul, -1ul), .want = GP0 },
	{ "user, operand not mapped", USER, .at = UNMAPPED, .want = GP0 },
	{ "user, operand for the supervisor", USER, .at = DESC, .want = GP0 },
	{ "user, ss of 4 KiB", USER, FORM(.seg = SS), .want = GP0,
	  .shape = { .seg = SS, .limited = true, .limit = 0xfff } },
	{ }
};

/* The CPU checks the type, then reads the operand, then checks the descriptor. */
static const struct test vmx_order[] = {
	{ "type 5, page not present", TYPE(5), .at = UNMAPPED, .want = VMFAIL },
	{ "type 5, not canonical", TYPE(5), .at = HOLE, .want = VMFAIL },
	{ "type 5, not canonical by rsp", TYPE(5), .at = HOLE, FORM(.base = SP), .want = VMFAIL },
	{ "type 32, page not present", TYPE(32), .at = UNMAPPED, .want = VMFAIL },
	{ "type 2^32 + 1, page not present", TYPE(BIT_ULL(32) + 1), .at = UNMAPPED,
	  .want = VMFAIL },
	{ "type 2, page not present", TYPE(2), .at = UNMAPPED, .want = PF(0) },
	{ "type 1, page not present", TYPE(1), .at = UNMAPPED, .want = PF(0) },
	{ "type 1, not canonical", TYPE(1), .at = HOLE, .want = GP0 },
	{ "type 2, not canonical by rsp", TYPE(2), .at = HOLE, FORM(.base = SP), .want = SS0 },
	{ "reserved bits, page not present", DESC2(-1ul, 0), .at = UNMAPPED, .want = PF(0) },
	{ }
};

static const struct test vmx_order32[] = {
	{ "type 5, beyond the limit", TYPE(5), .want = VMFAIL,
	  .shape = { .seg = DS, .limited = true, .limit = 0xa00e } },
	{ "type 5, ds unusable", TYPE(5), .want = VMFAIL,
	  .shape = { .seg = DS, .unusable = true } },
	{ "type 5, page not present", TYPE(5), .at = UNMAPPED, .want = VMFAIL },
	{ "type 2, page not present", TYPE(2), .at = UNMAPPED, .want = PF(0) },
	{ }
};

static const struct test undefined[] = {
	{ "good", .want = UD },
	{ "type 2", TYPE(2), .want = UD },
	{ "type 5", TYPE(5), .want = UD },
	{ "operand not mapped", .at = UNMAPPED, .want = UD },
	{ "reserved bits", DESC2(-1ul, -1ul), .want = UD },
	{ }
};

static const struct test undefined_user[] = {
	{ "good at CPL 3", USER, .want = UD },
	{ "type 5 at CPL 3", USER, TYPE(5), .want = UD },
	{ "operand not mapped at CPL 3", USER, .at = UNMAPPED, .want = UD },
	{ }
};

static const struct test undefined16[] = {
	{ "good", .want = UD },
	{ "type 5", TYPE(5), .want = UD },
	{ }
};

static void vmx_privilege(struct machine *m, enum op insn)
{
	in_mode(m, insn, LONG, vmx_user);
	in_mode(m, insn, PROT32, vmx_user);
	in_mode(m, insn, PROT16, vmx_user);
	try_all(m, insn, vmx_order);
	in_mode(m, insn, PROT32, vmx_order32);
	encodings_in(m, insn);
	in_mode(m, insn, COMPAT, undefined);
	in_mode(m, insn, COMPAT, undefined_user);
	in_mode(m, insn, VM86, undefined16);
}

/* Outside VMX operation, #UD comes before every other fault. */
static void vmx_absent(struct machine *m, enum op insn)
{
	in_mode(m, insn, LONG, undefined);
	in_mode(m, insn, LONG, undefined_user);
	in_mode(m, insn, COMPAT, undefined);
	in_mode(m, insn, PROT32, undefined);
	in_mode(m, insn, PROT32, undefined_user);
	in_mode(m, insn, PROT16, undefined);
	in_mode(m, insn, VM86, undefined16);
	in_mode(m, insn, REAL, undefined16);
}

void invvpid_privilege(struct machine *m)
{
	vmx_privilege(m, INVVPID);
}

void invvpid_no_vmx(struct machine *m)
{
	vmx_absent(m, INVVPID);
}

void invept_privilege(struct machine *m)
{
	vmx_privilege(m, INVEPT);
}

void invept_no_vmx(struct machine *m)
{
	vmx_absent(m, INVEPT);
}

/* With ept=0, L1 has no EPT either. */
void invept_no_ept(struct machine *m)
{
	in_mode(m, INVEPT, LONG, undefined);
	in_mode(m, INVEPT, LONG, undefined_user);
	in_mode(m, INVEPT, PROT32, undefined);
	in_mode(m, INVEPT, PROT16, undefined);
}

/* With TF set, the trap comes after the instruction, even after a VM-fail. */
static const struct test steps[] = {
	{ "stepped", .rflags = X86_EFLAGS_TF, .want = STEPPED },
	{ "stepped, not canonical", .rflags = X86_EFLAGS_TF, .at = HOLE, .want = GP0 },
	{ "stepped, page not present", .rflags = X86_EFLAGS_TF, .at = UNMAPPED, .want = PF(0) },
	{ }
};

static const struct test steps32[] = {
	{ "stepped", .rflags = X86_EFLAGS_TF, .want = STEPPED },
	{ }
};

void step(struct machine *m)
{
	if (!m->ept) {
		in_mode(m, INVLPG, LONG, steps32);
		in_mode(m, INVLPG, PROT32, steps32);
	}
	if (!m->ept && kvm_cpu_has(X86_FEATURE_INVPCID)) {
		try_all(m, INVPCID, steps);
		in_mode(m, INVPCID, PROT32, steps32);
		in_mode(m, INVPCID, COMPAT, steps32);
	}
	try_all(m, INVVPID, steps);
	in_mode(m, INVVPID, PROT32, steps32);
	if (m->ept) {
		try_all(m, INVEPT, steps);
		in_mode(m, INVEPT, PROT32, steps32);
	}
}

static const struct test hidden[] = {
	{ "type 0", TYPE(0), .want = UD },
	{ "type 2", .want = UD },
	{ "type 4", TYPE(4), .want = UD },
	{ "reserved bits", DESC2(-1ul, 0), .want = UD },
	{ "operand not mapped", .at = UNMAPPED, .want = UD },
	{ "at CPL 3", USER, .want = UD },
	{ }
};

/* CPUID says that the CPU has no INVPCID. */
void invpcid_no_cpuid(struct machine *m)
{
	in_mode(m, INVPCID, LONG, hidden);
	in_mode(m, INVPCID, COMPAT, hidden);
	in_mode(m, INVPCID, PROT32, hidden);
}
