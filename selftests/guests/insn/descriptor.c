// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of types and descriptors: each value at a limit, and each bit
 * that must be 0.
 */
#include "groups.h"

#define ALL_ONES	0xffffffffffffffffull

/* Make the name of a case in a loop. */
static __printf(1, 2) const char *name(const char *format, ...)
{
	static char text[80];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return text;
}

static const u64 bad_types[] = {
	4, 5, 7, 8, 31, 32, 33, 34, 35, 63, 64, 255, BIT_ULL(31), BIT_ULL(32), BIT_ULL(32) + 1,
	BIT_ULL(32) + 2, BIT_ULL(63), ALL_ONES,
};

/* Any register can have the type. */
static void types_in_registers(struct machine *m, enum op insn, u64 good, u64 bad, u32 refusal)
{
	static const struct {
		const char *name;
		enum reg reg;
	} regs[] = {
		{ "rax", AX }, { "rdx", DX }, { "rsp", SP }, { "rbp", BP }, { "rsi", SI },
		{ "rdi", DI }, { "r8", R8 }, { "r9", R9 }, { "r10", R10 }, { "r11", R11 },
		{ "r12", R12 }, { "r13", R13 }, { "r14", R14 }, { "r15", R15 },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		struct test test = { .type_reg = regs[i].reg, .want = OK, TYPE(good) };

		test.name = name("type %lu in %s", good, regs[i].name);
		try(m, insn, &test);
		test.name = name("type %#lx in %s", bad, regs[i].name);
		test.type = bad;
		test.want = refusal;
		try(m, insn, &test);
	}
}

static void types(struct machine *m, enum op insn, u32 good, u32 refusal)
{
	struct test test = { TYPE(0) };
	int i;

	for (test.type = 0; test.type < 4; test.type++) {
		test.name = name("type %lu", test.type);
		test.want = good & BIT(test.type) ? OK : refusal;
		try(m, insn, &test);
	}
	for (i = 0; i < ARRAY_SIZE(bad_types); i++) {
		test.type = bad_types[i];
		test.name = name("type %#lx", test.type);
		test.want = refusal;
		try(m, insn, &test);
	}
	types_in_registers(m, insn, 2, BIT_ULL(32) + 2, refusal);
}

/* Outside 64-bit mode the type has 32 bits. */
static void types32(struct machine *m, enum op insn, u32 good, u32 refusal)
{
	static const u64 values[] = { 0, 1, 2, 3, 4, 31, 32, 0x80000000, 0xffffffff };
	struct test test = { .mode = PROT32, TYPE(0) };
	int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		test.name = name("32-bit type %#lx", values[i]);
		test.type = values[i];
		test.want = values[i] < 4 && good & BIT(values[i]) ? OK : refusal;
		try(m, insn, &test);
		test.name = name("32-bit type %#lx, upper half set", values[i]);
		test.type |= 0xffffffff00000000;
		try(m, insn, &test);
	}
}

void invpcid_types(struct machine *m)
{
	types(m, INVPCID, 0xf, GP0);
	types32(m, INVPCID, 0xf, GP0);
}

void invvpid_types(struct machine *m)
{
	types(m, INVVPID, 0xf, VMFAIL);
	types32(m, INVVPID, 0xf, VMFAIL);
}

void invept_types(struct machine *m)
{
	types(m, INVEPT, 0x6, VMFAIL);
	types32(m, INVEPT, 0x6, VMFAIL);
}

static const struct test pcids[] = {
	{ "type 0, PCID 1, PCIDE off", TYPE(0), DESC2(1, 0), .want = GP0 },
	{ "type 1, PCID 1, PCIDE off", TYPE(1), DESC2(1, 0), .want = GP0 },
	{ "type 2, PCID 1, PCIDE off", TYPE(2), DESC2(1, 0), .want = OK },
	{ "type 3, PCID 1, PCIDE off", TYPE(3), DESC2(1, 0), .want = OK },
	{ "type 0, PCID 4095, PCIDE off", TYPE(0), DESC2(0xfff, 0), .want = GP0 },
	{ "type 1, PCID 4095, PCIDE off", TYPE(1), DESC2(0xfff, 0), .want = GP0 },
	{ "type 2, PCID 4095, PCIDE off", TYPE(2), DESC2(0xfff, 0), .want = OK },
	{ "type 3, PCID 4095, PCIDE off", TYPE(3), DESC2(0xfff, 0), .want = OK },
#define PCIDE .cr4 = X86_CR4_PCIDE
	{ "type 0, PCID 0, PCIDE on", TYPE(0), DESC2(0, 0), PCIDE, .want = OK },
	{ "type 1, PCID 0, PCIDE on", TYPE(1), DESC2(0, 0), PCIDE, .want = OK },
	{ "type 0, PCID 1, PCIDE on", TYPE(0), DESC2(1, 0), PCIDE, .want = OK },
	{ "type 1, PCID 1, PCIDE on", TYPE(1), DESC2(1, 0), PCIDE, .want = OK },
	{ "type 2, PCID 1, PCIDE on", TYPE(2), DESC2(1, 0), PCIDE, .want = OK },
	{ "type 3, PCID 1, PCIDE on", TYPE(3), DESC2(1, 0), PCIDE, .want = OK },
	{ "type 0, PCID 4095, PCIDE on", TYPE(0), DESC2(0xfff, 0), PCIDE, .want = OK },
	{ "type 1, PCID 4095, PCIDE on", TYPE(1), DESC2(0xfff, 0), PCIDE, .want = OK },
	{ "type 0, PCID 4096, PCIDE on", TYPE(0), DESC2(0x1000, 0), PCIDE, .want = GP0 },
	{ "type 1, PCID 4096, PCIDE on", TYPE(1), DESC2(0x1000, 0), PCIDE, .want = GP0 },
	{ "type 3, PCID 4096, PCIDE on", TYPE(3), DESC2(0x1000, 0), PCIDE, .want = GP0 },
	{ "type 4, PCID 1, PCIDE on", TYPE(4), DESC2(1, 0), PCIDE, .want = GP0 },
	{ }
};

/*
 * The address in a descriptor.  Only type 0 checks the address, by the widest linear
 * addresses that the CPU has, in any paging mode.
 */
static void addresses(struct machine *m, enum op insn, u64 low, u32 refusal)
{
	int width = kvm_cpu_has(X86_FEATURE_LA57) ? 57 : 48;
	u64 last_low = BIT_ULL(width - 1) - 1, first_high = ~last_low;
	const u64 good[] = { 0, 1, last_low, first_high, ALL_ONES };
	const u64 bad[] = {
		last_low + 1, first_high - 1, BIT_ULL(63), BIT_ULL(width), BIT_ULL(56),
		ALL_ONES >> 1, ALL_ONES << 57 >> 1, BIT_ULL(63) + 1,
	};
	struct test test = { TYPE(0), DESC2(low, 0) };
	int i;

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		test.desc[1] = good[i];
		test.name = name("type 0, address %#lx", good[i]);
		test.want = OK;
		try(m, insn, &test);
	}
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		test.desc[1] = bad[i];
		for (test.type = 0; test.type < 4; test.type++) {
			test.name = name("type %lu, address %#lx", test.type, bad[i]);
			test.want = test.type ? OK : refusal;
			try(m, insn, &test);
		}
	}
}

/* One bit of the first quadword at a time. */
static void bits(struct machine *m, enum op insn, u64 low, int first, u32 refusal)
{
	struct test test = { .described = true };
	int bit;

	for (bit = first; bit < 64; bit++) {
		test.typed = true;
		for (test.type = 0; test.type < 4; test.type++) {
			/* Each bit has one type; the first and the last bit have all types. */
			if (bit != first && bit != 63 && (bit & 3) != test.type)
				continue;
			test.desc[0] = low | BIT_ULL(bit);
			test.name = name("type %lu, bit %d of the descriptor", test.type, bit);
			test.want = refusal;
			try(m, insn, &test);
		}
	}
}

void invpcid_descriptor(struct machine *m)
{
	bits(m, INVPCID, 0, 12, GP0);
	try_all(m, INVPCID, pcids);
	addresses(m, INVPCID, 0, GP0);
}

static const struct test vpids[] = {
	{ "type 0, VPID 0", TYPE(0), DESC2(0, 0), .want = VMFAIL },
	{ "type 1, VPID 0", TYPE(1), DESC2(0, 0), .want = VMFAIL },
	{ "type 2, VPID 0", TYPE(2), DESC2(0, 0), .want = OK },
	{ "type 3, VPID 0", TYPE(3), DESC2(0, 0), .want = VMFAIL },
	{ "type 0, VPID 1", TYPE(0), DESC2(1, 0), .want = OK },
	{ "type 0, VPID 65535", TYPE(0), DESC2(0xffff, 0), .want = OK },
	{ "type 1, VPID 65535", TYPE(1), DESC2(0xffff, 0), .want = OK },
	{ "type 2, VPID 65535", TYPE(2), DESC2(0xffff, 0), .want = OK },
	{ "type 3, VPID 65535", TYPE(3), DESC2(0xffff, 0), .want = OK },
	{ "type 0, VPID 0x8000", TYPE(0), DESC2(0x8000, 0), .want = OK },
	{ "type 1, VPID 65536", TYPE(1), DESC2(0x10000, 0), .want = VMFAIL },
	{ "type 2, VPID 65536", TYPE(2), DESC2(0x10000, 0), .want = VMFAIL },
	{ "type 0, VPID 0, bad address", TYPE(0), DESC2(0, BIT_ULL(63)), .want = VMFAIL },
	{ }
};

void invvpid_descriptor(struct machine *m)
{
	bits(m, INVVPID, 1, 16, VMFAIL);
	try_all(m, INVVPID, vpids);
	addresses(m, INVVPID, 1, VMFAIL);
}
