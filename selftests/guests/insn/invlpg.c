// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of INVLPG.  INVLPG reads no operand, so its address cannot
 * fault; but the CPU has to drop the translation of the address.
 */
#include "groups.h"

#define HOLE		0x800000000000
#define FORM(...)	.form = { __VA_ARGS__ }
#define SHAPE(...)	.shape = { __VA_ARGS__ }
#define VIA(s)		FORM(.seg = (s))
#define BY_EBP		FORM(.base = BP, .dsize = 8)
#define EFFECT		.at = WINDOW + 0x123, .effect = true, .want = OK

/*
 * Try cases of other tables with an address in the window.  before() and after() use RAX,
 * and a 16-bit address needs a segment near the window.
 */
static void with_effect(struct machine *m, enum cpumode mode, const struct test *tests)
{
	for (; tests->name; tests++) {
		struct test test[] = { *tests, { } };
		struct form *form = &test->form;

		if (test->at || form->base == AX || form->index == AX)
			continue;
		if (form->asize == 16 && test->shape.seg)
			continue;
		if (form->asize == 16) {
			test->shape.seg = form->seg ?: form->base == BP ? SS : DS;
			test->shape.base = WINDOW - 0x8000;
		}
		test->at = WINDOW + 0x800;
		test->effect = true;
		in_mode(m, INVLPG, mode, test);
	}
}

void invlpg_address(struct machine *m)
{
	with_effect(m, LONG, forms64);
	with_effect(m, LONG, segments64);
	with_effect(m, COMPAT, forms32);
	with_effect(m, PROT32, forms32);
	with_effect(m, PROT32, forms16);
	with_effect(m, PROT16, forms16);
}

/* INVLPG ignores limits and types of segments, and drops the page. */
static const struct test segments[] = {
	{ "ds of 4 KiB", SHAPE(.seg = DS, .limited = true, .limit = 0xfff), EFFECT },
	{ "ds, beyond by one byte", SHAPE(.seg = DS, .base = WINDOW, .limited = true,
					  .limit = 0x122), EFFECT },
	{ "ds with a base, beyond", SHAPE(.seg = DS, .base = WINDOW - 0x10000, .limited = true,
					  .limit = 0xffff), EFFECT },
	{ "es: of 4 KiB", SHAPE(.seg = ES, .limited = true, .limit = 0xfff), VIA(ES), EFFECT },
	{ "fs: of 4 KiB", SHAPE(.seg = FS, .limited = true, .limit = 0xfff), VIA(FS), EFFECT },
	{ "gs: of 4 KiB", SHAPE(.seg = GS, .limited = true, .limit = 0xfff), VIA(GS), EFFECT },
	{ "cs: of 16 KiB", SHAPE(.seg = CS, .limited = true, .limit = 0x3fff), VIA(CS), EFFECT },
	{ "ss: of 64 KiB", SHAPE(.seg = SS, .limited = true, .limit = 0xffff), VIA(SS), EFFECT },
	{ "ss by ebp, of 64 KiB", SHAPE(.seg = SS, .limited = true, .limit = 0xffff), BY_EBP,
	  EFFECT },
	{ "ds, expand-down, outside", SHAPE(.seg = DS, .type = 7), EFFECT },
	{ "ds, read-only", SHAPE(.seg = DS, .type = 1), EFFECT },
	{ "ds, unusable", SHAPE(.seg = DS, .unusable = true), EFFECT },
	{ "es:, unusable", SHAPE(.seg = ES, .unusable = true), VIA(ES), EFFECT },
	{ "fs:, unusable", SHAPE(.seg = FS, .unusable = true), VIA(FS), EFFECT },
	{ "gs:, unusable", SHAPE(.seg = GS, .unusable = true), VIA(GS), EFFECT },
	{ "cs:, execute-only", SHAPE(.seg = CS, .type = 9), VIA(CS), EFFECT },
	{ "ds, sum past 4 GiB", SHAPE(.seg = DS, .base = 0x80000000), EFFECT },
	{ }
};

/* Segments of compatibility mode work as in 32-bit code. */
static const struct test compat[] = {
	{ "ds with a base", SHAPE(.seg = DS, .base = 0x10000000), EFFECT },
	{ "es: with a base", SHAPE(.seg = ES, .base = 0x10000000), VIA(ES), EFFECT },
	{ "fs: with a base", SHAPE(.seg = FS, .base = 0x10000000), VIA(FS), EFFECT },
	{ "fs:, upper half of the base is ignored", SHAPE(.seg = FS, .base = 0x8010000000), VIA(FS),
	  EFFECT },
	{ }
};

static const struct test addresses[] = {
	{ "address 0 by rbx", SHAPE(.seg = FS, .base = 0x1000), VIA(FS), .at = 0x1000, .want = OK },
	{ "not mapped", .at = WINDOW64 + 0x100000, .want = OK },
	{ "last before the hole", .at = HOLE - 1, .want = OK },
	{ "first of the hole", .at = HOLE, .want = OK },
	{ "last of the hole", .at = EDGE_HIGH - 1, .want = OK },
	{ "behind the hole", .at = EDGE_HIGH, .want = OK },
	{ "only bit 63", .at = BIT_ULL(63), .want = OK },
	{ "only bit 56", .at = BIT_ULL(56), .want = OK },
	{ "the very last byte", .at = -1ul, .want = OK },
	{ "in the hole by rsp", .at = HOLE, FORM(.base = SP), .want = OK },
	{ "in the hole by rbp", .at = HOLE, BY_EBP, .want = OK },
	{ "in the hole, fs:", .at = HOLE, VIA(FS), SHAPE(.seg = FS, .base = EDGE_LOW), .want = OK },
	{ "no memory behind it", .at = NO_MEMORY, .want = OK },
	{ "the instruction's own page", .at = CODE, .want = OK },
	{ "the stack", .at = STACK_TOP - 8, .want = OK },
	{ "PCIDE on", .cr4 = X86_CR4_PCIDE, EFFECT },
	{ "no global pages", .cr4_off = X86_CR4_PGE, EFFECT },
	{ }
};

static const struct test pagings[] = {
	{ "two-level", .mode = PROT32, .paging = TWO_LEVEL, EFFECT },
	{ "two-level, no PSE", .mode = PROT32, .paging = TWO_LEVEL, .cr4_off = X86_CR4_PSE,
	  EFFECT },
	{ "PAE", .mode = PROT32, .paging = PAE, EFFECT },
	{ "PAE, no NXE", .mode = PROT32, .paging = PAE, .efer_off = EFER_NX, EFFECT },
	{ "paging off", .mode = PROT32, .paging = OFF, .want = OK },
	{ "paging off, no memory", .mode = PROT32, .paging = OFF, .at = NO_MEMORY, .want = OK },
	{ "real mode", .mode = REAL, .want = OK },
	{ "vm86", .mode = VM86, .want = GP0 },
	{ "vm86, lock", .mode = VM86, .lock = true, .want = UD },
	{ }
};

void invlpg_segment(struct machine *m)
{
	in_mode(m, INVLPG, PROT32, segments);
	in_mode(m, INVLPG, COMPAT, segments);
	in_mode(m, INVLPG, COMPAT, compat);
	try_all(m, INVLPG, addresses);
	try_all(m, INVLPG, pagings);
}

static const struct test privileges[] = {
	{ "user", .user = true, .want = GP0 },
	{ "user, not mapped", .user = true, .at = WINDOW + 0x100000, .want = GP0 },
	{ "user, for the supervisor", .user = true, .at = DESC, .want = GP0 },
	{ "lock", .lock = true, .want = UD },
	{ "lock, not mapped", .lock = true, .at = WINDOW + 0x100000, .want = UD },
	{ "lock at CPL 3", .lock = true, .user = true, .want = UD },
	/* EBX, because with EAX and ECX the bytes are SWAPGS and RDTSCP. */
	{ "a register as operand", FORM(.direct = true, .base = BX), .want = UD },
	{ "a register as operand at CPL 3", FORM(.direct = true, .base = BX), .user = true,
	  .want = UD },
	{ }
};

static const struct test long_user[] = {
	{ "user, not canonical", .user = true, .at = HOLE, .want = GP0 },
	{ "user, not canonical by rsp", .user = true, .at = HOLE, FORM(.base = SP), .want = GP0 },
	{ }
};

void invlpg_privilege(struct machine *m)
{
	in_mode(m, INVLPG, LONG, privileges);
	in_mode(m, INVLPG, COMPAT, privileges);
	in_mode(m, INVLPG, PROT32, privileges);
	in_mode(m, INVLPG, PROT16, privileges);
	try_all(m, INVLPG, long_user);
}
