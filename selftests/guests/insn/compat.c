// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of compatibility mode: long mode is active, but segments work
 * as in 32-bit code.  Only INVPCID and INVLPG execute there; an instruction of VMX
 * raises #UD.
 */
#include "groups.h"

#define FORM(...)	.form = { __VA_ARGS__ }
#define SHAPE(...)	.shape = { __VA_ARGS__ }
#define BASED(s, b)	SHAPE(.seg = (s), .base = (b))
#define LIMIT(s, b, l)	SHAPE(.seg = (s), .base = (b), .limited = true, .limit = (l))
#define DOWN(s, l)	SHAPE(.seg = (s), .type = 7, .limited = true, .limit = (l))
#define VIA(s)		FORM(.seg = (s))
#define BY_EBP		FORM(.base = BP, .dsize = 8)
/* C decodes as in 64-bit mode: with bases of FS and GS only, without limits and types. */
#define COMPAT_GAP(end)	GAP("compat-mode", end)

/* C reads at the offset without the base, where memory is full of ones. */
static const struct test bases[] = {
	{ "flat", .want = OK },
	{ "ds", BASED(DS, 0x1000), .want = OK, COMPAT_GAP(GP0) },
	{ "es:", BASED(ES, 0x1000), VIA(ES), .want = OK, COMPAT_GAP(GP0) },
	{ "cs:", BASED(CS, 0x1000), VIA(CS), .want = OK, COMPAT_GAP(GP0) },
	{ "ss:", BASED(SS, 0x1000), VIA(SS), .want = OK, COMPAT_GAP(GP0) },
	{ "ss by ebp", BASED(SS, 0x1000), BY_EBP, .want = OK, COMPAT_GAP(GP0) },
	{ "ss by esp", BASED(SS, 0x1000), FORM(.base = SP), .want = OK, COMPAT_GAP(GP0) },
	{ "ds:[ebp]", BASED(DS, 0x1000), FORM(.seg = DS, .base = BP, .dsize = 8), .want = OK,
	  COMPAT_GAP(GP0) },
	{ "fs:", BASED(FS, 0x1000), VIA(FS), .want = OK },
	{ "gs:", BASED(GS, 0x1000), VIA(GS), .want = OK },
	{ "fs:, upper half of the base is ignored", BASED(FS, 0x8000001000), VIA(FS), .want = OK,
	  COMPAT_GAP(PF(0)), .c_cr2 = 0x8000000000 + DESC },
	{ "gs:, upper half of the base is ignored", BASED(GS, 0xffff800000001000), VIA(GS),
	  .want = OK, COMPAT_GAP(PF(0)), .c_cr2 = 0xffff800000000000 + DESC },
	{ "fs:, sum past 4 GiB", BASED(FS, 0xfffff000), VIA(FS), .want = OK,
	  COMPAT_GAP(PF(0)), .c_cr2 = 0x100000000 + DESC },
	{ "16-bit address", FORM(.asize = 16), .want = OK },
	{ "16-bit address, ds", FORM(.asize = 16), BASED(DS, 0x1000), .want = OK,
	  COMPAT_GAP(GP0) },
	{ "[bp+si+8]", FORM(.asize = 16, .base = BP, .index = SI, .dsize = 8, .disp = 8),
	  .want = OK },
	{ }
};

static const struct test limits[] = {
	{ "ds, last byte at the limit", LIMIT(DS, 0, 0xa00f), .want = OK },
	{ "ds, last byte beyond", LIMIT(DS, 0, 0xa00e), .want = GP0, COMPAT_GAP(OK) },
	{ "ds, all beyond", LIMIT(DS, 0, 0xfff), .want = GP0, COMPAT_GAP(OK) },
	{ "es:, last byte beyond", LIMIT(ES, 0, 0xa00e), VIA(ES), .want = GP0, COMPAT_GAP(OK) },
	{ "cs:, last byte beyond", LIMIT(CS, 0, 0xa00e), VIA(CS), .want = GP0, COMPAT_GAP(OK) },
	{ "fs:, last byte beyond", LIMIT(FS, 0, 0xa00e), VIA(FS), .want = GP0, COMPAT_GAP(OK) },
	{ "gs:, last byte beyond", LIMIT(GS, 0, 0xa00e), VIA(GS), .want = GP0, COMPAT_GAP(OK) },
	{ "ss:, last byte beyond", LIMIT(SS, 0, 0xa00e), VIA(SS), .want = SS0, COMPAT_GAP(OK) },
	{ "ss by ebp, last byte beyond", LIMIT(SS, 0, 0xa00e), BY_EBP, .want = SS0,
	  COMPAT_GAP(OK) },
	{ "ds, expand-down, inside", DOWN(DS, 0x9fff), .want = OK },
	{ "ds, expand-down, outside", DOWN(DS, 0xa00f), .want = GP0, COMPAT_GAP(OK) },
	{ "ss, expand-down, outside", DOWN(SS, 0xa00f), BY_EBP, .want = SS0, COMPAT_GAP(OK) },
	{ "ds, expand-down of 64 KiB", .want = GP0, COMPAT_GAP(OK), .at = FRAME,
	  SHAPE(.seg = DS, .type = 7, .small = true, .limited = true, .limit = 0x9fff) },
	{ "ds, unusable", SHAPE(.seg = DS, .unusable = true), .want = GP0, COMPAT_GAP(OK) },
	{ "es:, unusable", SHAPE(.seg = ES, .unusable = true), VIA(ES), .want = GP0,
	  COMPAT_GAP(OK) },
	{ "fs:, unusable", SHAPE(.seg = FS, .unusable = true), VIA(FS), .want = GP0,
	  COMPAT_GAP(OK) },
	/* In long mode exceptions have a stack of their own, so SS may be unusable. */
	{ "ss by ebp, unusable", SHAPE(.seg = SS, .unusable = true), BY_EBP, .want = SS0,
	  COMPAT_GAP(OK) },
	{ "cs:, execute-only", SHAPE(.seg = CS, .type = 9), VIA(CS), .want = GP0, COMPAT_GAP(OK) },
	{ "cs:, readable", VIA(CS), .want = OK },
	{ "ds, readable code", SHAPE(.seg = DS, .type = 0xb), .want = OK },
	{ "last bytes of 4 GiB", .at = 0xfffffff0, .place = TOP_FRAME + 0xff0, .want = OK },
	{ "half past 4 GiB", .at = 0xfffffff8, .place = TOP_FRAME + 0xff8, .want = OK,
	  COMPAT_GAP(PF(0)), .c_cr2 = 0x100000000 },
	{ "ds of 4 GiB with a base, beyond", BASED(DS, 0x1000), OFFSET(0xfffffff8), .want = GP0,
	  COMPAT_GAP(PF(0)), .c_cr2 = 0x100000000 },
	{ }
};

static const struct test types[] = {
	{ "type 0", TYPE(0), .want = OK },
	{ "type 3, upper half set", TYPE(0xffffffff00000003), .want = OK },
	{ "type 2^32 + 4", TYPE(0x100000004), .want = GP0 },
	{ "type 4", TYPE(4), .want = GP0 },
	{ "bit 12 of the descriptor", DESC2(0x1000, 0), .want = GP0 },
	{ "address not canonical", TYPE(0), DESC2(0, BIT_ULL(63)), .want = GP0 },
	{ "address above 4 GiB", TYPE(0), DESC2(0, 0xffff800000000000), .want = OK },
	{ "PCID 1", TYPE(1), DESC2(1, 0), .cr4 = X86_CR4_PCIDE, .want = OK },
	{ "operand not mapped", .at = WINDOW + 0x100000, .want = PF(0) },
	{ }
};

void invpcid_compat(struct machine *m)
{
	in_mode(m, INVPCID, COMPAT, bases);
	in_mode(m, INVPCID, COMPAT, limits);
	in_mode(m, INVPCID, COMPAT, types);
}
