// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of segments outside 64-bit mode: bases, limits, types.
 *
 * The operand has 16 bytes, so the last valid offset is limit - 15.
 */
#include "groups.h"

#define FORM(...)	.form = { __VA_ARGS__ }
#define SHAPE(...)	.shape = { __VA_ARGS__ }
#define LIMIT(s, b, l)	SHAPE(.seg = (s), .base = (b), .limited = true, .limit = (l))
#define DOWN(s, l)	SHAPE(.seg = (s), .type = 7, .limited = true, .limit = (l))
#define DOWN64K(s, l)	SHAPE(.seg = (s), .type = 7, .small = true, .limited = true, .limit = (l))
#define VIA(s)		FORM(.seg = (s))
#define BY_EBP		FORM(.base = BP, .dsize = 8)
#define EXPAND(end)	GAP("expand-down", end)

static const struct test limits[] = {
	{ "ds, last byte at the limit", LIMIT(DS, 0x4000, 0x600f), OFFSET(0x6000), .want = OK },
	{ "ds, last byte beyond", LIMIT(DS, 0x4000, 0x600e), OFFSET(0x6000), .want = GP0 },
	{ "ds, first byte at the limit", LIMIT(DS, 0x4000, 0x6000), OFFSET(0x6000), .want = GP0 },
	{ "ds, all beyond", LIMIT(DS, 0x4000, 0x5fff), OFFSET(0x6000), .want = GP0 },
	{ "ds, far beyond", LIMIT(DS, 0x4000, 0xfff), OFFSET(0xffff0000), .want = GP0 },
	{ "ds, at offset 0xfffffff0", LIMIT(DS, 0x4000, 0xfff), OFFSET(0xfffffff0), .want = GP0 },
	{ "ds, past 4 GiB", LIMIT(DS, 0x4000, 0xfff), OFFSET(0xfffffff8), .want = GP0 },
	{ "ds of 16 bytes", LIMIT(DS, DESC - 1, 0x10), OFFSET(1), .want = OK },
	{ "ds of 15 bytes", LIMIT(DS, DESC - 1, 0xf), OFFSET(1), .want = GP0 },
	{ "ds of one byte", LIMIT(DS, DESC - 1, 0), OFFSET(1), .want = GP0 },
	{ "ds of pages, last byte", LIMIT(DS, 0x4000, 0x1fffff), OFFSET(0x1ffff0), .want = OK },
	{ "ds of pages, beyond", LIMIT(DS, 0x4000, 0x1fffff), OFFSET(0x1ffff1), .want = GP0 },
	{ "ds of 4 GiB with a base, last byte", LIMIT(DS, 0x6000, 0xffffffff),
	  OFFSET(0xfffffff0), .want = OK },
	{ "ds of 4 GiB with a base, beyond", LIMIT(DS, 0x6000, 0xffffffff),
	  OFFSET(0xfffffff1), .want = GP0 },
	{ "es, last byte at the limit", LIMIT(ES, 0, 0xa00f), VIA(ES), .want = OK },
	{ "es, last byte beyond", LIMIT(ES, 0, 0xa00e), VIA(ES), .want = GP0 },
	{ "fs, last byte at the limit", LIMIT(FS, 0, 0xa00f), VIA(FS), .want = OK },
	{ "fs, last byte beyond", LIMIT(FS, 0, 0xa00e), VIA(FS), .want = GP0 },
	{ "gs, last byte at the limit", LIMIT(GS, 0, 0xa00f), VIA(GS), .want = OK },
	{ "gs, last byte beyond", LIMIT(GS, 0, 0xa00e), VIA(GS), .want = GP0 },
	{ "cs, last byte at the limit", LIMIT(CS, 0, 0xa00f), VIA(CS), .want = OK },
	{ "cs, last byte beyond", LIMIT(CS, 0, 0xa00e), VIA(CS), .want = GP0 },
	{ "ss, last byte at the limit", LIMIT(SS, 0, 0xa00f), VIA(SS), .want = OK },
	{ "ss, last byte beyond", LIMIT(SS, 0, 0xa00e), VIA(SS), .want = SS0 },
	{ "ss by ebp, last byte at the limit", LIMIT(SS, 0x1000, 0x900f), BY_EBP, .want = OK },
	{ "ss by ebp, last byte beyond", LIMIT(SS, 0x1000, 0x900e), BY_EBP, .want = SS0 },
	{ "ds by ebp, last byte beyond", LIMIT(DS, 0, 0xa00e), .want = GP0,
	  FORM(.seg = DS, .base = BP, .dsize = 8) },
	{ "ds short, ss by ebp", LIMIT(DS, 0, 0xfff), BY_EBP, .want = OK },
	{ "ss short, ds by ebx", LIMIT(SS, 0, 0x7fff), .want = OK },
	{ "ds short, es:", LIMIT(DS, 0, 0xfff), VIA(ES), .want = OK },
	{ "16-bit address, last byte at the limit", LIMIT(DS, 0, 0xa00f),
	  FORM(.asize = 16), .want = OK },
	{ "16-bit address, last byte beyond", LIMIT(DS, 0, 0xa00e),
	  FORM(.asize = 16), .want = GP0 },
	{ "16-bit address, segment of 64 KiB", LIMIT(DS, 0, 0xffff), FORM(.asize = 16),
	  OFFSET(0xfff0), .want = OK },
	{ "16-bit address, beyond 64 KiB", LIMIT(DS, 0, 0xffff), FORM(.asize = 16),
	  OFFSET(0xfff1), .want = GP0 },
	{ "16-bit address by bp, beyond", LIMIT(SS, 0, 0xa00e),
	  FORM(.asize = 16, .base = BP, .dsize = 8), .want = SS0 },
	{ }
};

static const struct test kinds[] = {
	{ "ds, read-only", SHAPE(.seg = DS, .type = 1), .want = OK },
	{ "ds, readable code", SHAPE(.seg = DS, .type = 0xb), .want = OK },
	{ "ds, readable conforming code", SHAPE(.seg = DS, .type = 0xf), .want = OK },
	{ "cs:, readable code", SHAPE(.seg = CS, .type = 0xb), VIA(CS), .want = OK },
	{ "cs:, readable conforming code", SHAPE(.seg = CS, .type = 0xf), VIA(CS), .want = OK },
	{ "cs:, execute-only", SHAPE(.seg = CS, .type = 9), VIA(CS), .want = GP0 },
	{ "cs:, execute-only, conforming", SHAPE(.seg = CS, .type = 0xd), VIA(CS), .want = GP0 },
	{ "cs execute-only, ds", SHAPE(.seg = CS, .type = 9), .want = OK },
	/* There is no case of an unusable SS: the exception would have no stack. */
	{ "ds, unusable", SHAPE(.seg = DS, .unusable = true), .want = GP0 },
	{ "es, unusable", SHAPE(.seg = ES, .unusable = true), VIA(ES), .want = GP0 },
	{ "fs, unusable", SHAPE(.seg = FS, .unusable = true), VIA(FS), .want = GP0 },
	{ "gs, unusable", SHAPE(.seg = GS, .unusable = true), VIA(GS), .want = GP0 },
	{ "ds unusable, ss by ebp", SHAPE(.seg = DS, .unusable = true), BY_EBP, .want = OK },
	{ "ds unusable, operand not mapped", SHAPE(.seg = DS, .unusable = true),
	  .at = WINDOW + 0x100000, .want = GP0 },
	{ }
};

/* An expand-down segment has the offsets above its limit, to 4 GiB or, with B clear, 64 KiB. */
static const struct test expand_down[] = {
	{ "ds, limit below", DOWN(DS, 0x8fff), .want = OK, EXPAND(GP0) },
	{ "ds, limit just below", DOWN(DS, 0x9fff), .want = OK, EXPAND(GP0) },
	{ "ds, first byte at the limit", DOWN(DS, 0xa000), .want = GP0 },
	{ "ds, last byte at the limit", DOWN(DS, 0xa00f), .want = GP0, EXPAND(OK) },
	{ "ds, limit above", DOWN(DS, 0xffff), .want = GP0, EXPAND(OK) },
	{ "ds, limit of pages above", DOWN(DS, 0x1fffff), .want = GP0, EXPAND(OK) },
	{ "ds, nothing inside", DOWN(DS, 0xffffffff), .want = GP0, EXPAND(OK) },
	{ "ds, limit 0", DOWN(DS, 0), .want = OK, EXPAND(GP0) },
	{ "ds, last bytes of 4 GiB", DOWN(DS, 0xffff), OFFSET(0xfffffff0),
	  .place = TOP_FRAME + 0xff0, .want = OK, EXPAND(GP0) },
	{ "ds, past 4 GiB", DOWN(DS, 0xffff), OFFSET(0xfffffff1), .want = GP0 },
	{ "ds of 64 KiB, limit just below", DOWN64K(DS, 0x9fff), .want = OK, EXPAND(GP0) },
	{ "ds of 64 KiB, last byte at the limit", DOWN64K(DS, 0xa00f), .want = GP0, EXPAND(OK) },
	{ "ds of 64 KiB, last bytes", DOWN64K(DS, 0x9fff), OFFSET(0xfff0), .want = OK,
	  EXPAND(GP0) },
	{ "ds of 64 KiB, beyond", DOWN64K(DS, 0x9fff), OFFSET(0xfff1), .want = GP0 },
	{ "ds of 64 KiB, far beyond", DOWN64K(DS, 0x9fff), .at = FRAME, .want = GP0 },
	{ "ds, read-only", SHAPE(.seg = DS, .type = 5, .limited = true, .limit = 0x9fff),
	  .want = OK, EXPAND(GP0) },
	{ "ds with a base", SHAPE(.seg = DS, .type = 7, .base = 0x4000, .limited = true,
				  .limit = 0x5fff), .want = OK, EXPAND(GP0) },
	{ "es:, limit just below", DOWN(ES, 0x9fff), VIA(ES), .want = OK, EXPAND(GP0) },
	{ "es:, last byte at the limit", DOWN(ES, 0xa00f), VIA(ES), .want = GP0, EXPAND(OK) },
	{ "fs:, limit just below", DOWN(FS, 0x9fff), VIA(FS), .want = OK, EXPAND(GP0) },
	{ "gs:, last byte at the limit", DOWN(GS, 0xa00f), VIA(GS), .want = GP0, EXPAND(OK) },
	{ "ss by ebp, limit below", DOWN(SS, 0x2fff), BY_EBP, .want = OK, EXPAND(SS0) },
	{ "ss by ebp, below the limit", DOWN(SS, 0x2fff), BY_EBP, .at = 0x1800, .want = SS0,
	  EXPAND(OK) },
	{ "ss by ebp, across the limit", DOWN(SS, 0x2fff), BY_EBP, .at = 0x2ff8, .want = SS0 },
	{ "code in place of data", SHAPE(.seg = DS, .type = 0xf, .limited = true, .limit = 0x9fff),
	  .want = GP0 },
	{ }
};

/* The CPU does not check the limit of a flat segment: the operand continues at address 0. */
static const struct test wraps[] = {
	{ "flat, last bytes", .at = 0xfffffff0, .place = TOP_FRAME + 0xff0, .want = OK },
	{ "flat, half past 4 GiB", .at = 0xfffffff8, .place = TOP_FRAME + 0xff8, .want = OK },
	{ "flat, one byte past 4 GiB", .at = 0xfffffff1, .place = TOP_FRAME + 0xff1, .want = OK },
	{ "flat, half past 4 GiB, es:", .at = 0xfffffff8, .place = TOP_FRAME + 0xff8, VIA(ES),
	  .want = OK },
	{ "flat, half past 4 GiB, ss by ebp", .at = 0xfffffff8, .place = TOP_FRAME + 0xff8, BY_EBP,
	  .want = OK },
	{ "based, linear address past 4 GiB", .at = 0xfffffff8, .place = TOP_FRAME + 0xff8,
	  LIMIT(DS, 0xffff0000, 0xfffff), .want = OK },
	{ "based, sum past 4 GiB", LIMIT(DS, 0xffff8000, 0xfffff), .want = OK },
	{ }
};

static void segments(struct machine *m, enum op insn)
{
	in_mode(m, insn, PROT32, limits);
	in_mode(m, insn, PROT32, kinds);
	in_mode(m, insn, PROT32, expand_down);
	in_mode(m, insn, PROT32, wraps);
	in_mode(m, insn, PROT16, kinds);
}

void invpcid_segment(struct machine *m)
{
	segments(m, INVPCID);
}

void invvpid_segment(struct machine *m)
{
	segments(m, INVVPID);
}

void invept_segment(struct machine *m)
{
	segments(m, INVEPT);
}
