// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of operands in memory that page tables of each kind map, and
 * of INVPCID with paging off.
 */
#include "groups.h"

/* With paging off, linear addresses are physical, and INVPCID has nothing to invalidate. */
static const struct test off[] = {
	{ "type 0", TYPE(0), .want = OK },
	{ "type 1", TYPE(1), .want = OK },
	{ "type 2", TYPE(2), .want = OK },
	{ "type 3", TYPE(3), .want = OK },
	{ "type 4", TYPE(4), .want = GP0 },
	{ "type 0, PCID 1", TYPE(0), DESC2(1, 0), .want = GP0 },
	{ "type 1, PCID 1", TYPE(1), DESC2(1, 0), .want = GP0 },
	{ "type 2, PCID 1", TYPE(2), DESC2(1, 0), .want = OK },
	{ "reserved bits", DESC2(0x1000, 0), .want = GP0 },
	{ "type 0, an address", TYPE(0), DESC2(0, WINDOW), .want = OK },
	{ "type 0, an address above 4 GiB", TYPE(0), DESC2(0, WINDOW64), .want = OK },
	{ "type 0, not canonical", TYPE(0), DESC2(0, BIT_ULL(63)), .want = GP0 },
	{ "across a page", .at = FRAME + 0xff8, .place = 0x60ff8, .want = OK },
	{ "no memory", .at = NO_MEMORY, .want = GP0, GAP("no-memory", STUCK) },
	{ "type 4, no memory", TYPE(4), .at = NO_MEMORY, .want = GP0, GAP("no-memory", STUCK) },
	{ "half in no memory", .at = MEMORY - 8, .place = MEMORY - 8, .want = OK,
	  GAP("no-memory", STUCK) },
	{ "last bytes of 4 GiB", .at = 0xfffffff0, .place = TOP_FRAME + 0xff0, .want = OK },
	{ "half past 4 GiB", TYPE(0), .at = 0xfffffff8, .place = TOP_FRAME + 0xff8, .want = OK,
	  GAP("wrap", GP0) },
	{ "ds, limit", .want = GP0, .shape = { .seg = DS, .limited = true, .limit = 0xa00e } },
	{ "user", .user = true, .want = GP0, GAP("cpl", OK) },
	{ }
};

void invpcid_paging_off(struct machine *m)
{
	const struct test *line;

	for (line = off; line->name; line++) {
		struct test test = *line;

		test.mode = PROT32;
		test.paging = OFF;
		try(m, INVPCID, &test);
	}
}

void invpcid_four_level(struct machine *m)
{
	walk_four_level(m, INVPCID);
}

void invpcid_pae(struct machine *m)
{
	walk_pae(m, INVPCID);
}

void invpcid_two_level(struct machine *m)
{
	walk_two_level(m, INVPCID);
}

void invvpid_four_level(struct machine *m)
{
	walk_four_level(m, INVVPID);
}

void invvpid_pae(struct machine *m)
{
	walk_pae(m, INVVPID);
}

void invvpid_two_level(struct machine *m)
{
	walk_two_level(m, INVVPID);
}

/* The walk is the same code as for INVVPID, so a few cases are enough for INVEPT. */
static const struct test invept_pages[] = {
	{ "both pages", .at = WINDOW64 + 0xff8, .place = FRAME + 0xff8, .want = OK },
	{ "not present", .at = WINDOW64 + 0x100000, .want = PF(0) },
	{ "second page not present", .at = WINDOW64 + 0x1ff8, .want = PF2(0) },
	{ "type 2, second page not present", TYPE(2), .at = WINDOW64 + 0x1ff8, .want = PF2(0) },
	{ "second page not present, one byte", .at = WINDOW64 + 0x1ff1, .want = PF2(0) },
	{ "first page not present", .at = WINDOW64 - 8, .want = PF(0) },
	{ }
};

void invept_paging(struct machine *m)
{
	try_all(m, INVEPT, invept_pages);
}
