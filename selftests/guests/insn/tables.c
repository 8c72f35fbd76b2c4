// SPDX-License-Identifier: GPL-2.0
/*
 * This file makes page tables of three kinds in guest memory.
 *
 * Each kind maps the low 2 MiB one to one for the supervisor, the same memory at ALIAS
 * for all privilege levels, and a window of two pages whose frames are not neighbours.
 * The four-level tables also map the pages at both ends of the canonical hole, so that
 * only the address of an operand there is wrong.
 */
#include "insn.h"

/* The root of each kind is at TABLES + its number, see set_mode(). */
enum {
	ROOT, ROOT32 = TWO_LEVEL, ROOT_PAE = PAE, ROOT64 = FOUR_LEVEL,
	LOW_PT32, WINDOW_PT32, LOW_PD, WINDOW_PD, WINDOW_PT, LOW_PDPT, WINDOW_PDPT,
	EDGE_PDPT, EDGE_PD, EDGE_PT, TOP_PD, TOP_PT, TOP_PT32, NR_TABLES
};

#define P	BIT_ULL(0)
#define RW	BIT_ULL(1)
#define US	BIT_ULL(2)
#define PS	BIT_ULL(7)
#define ALL	(P | RW | US)

static u64 table(int number)
{
	return TABLES + number * PAGE_SIZE;
}

static void set(struct machine *m, int number, int index, u64 entry)
{
	((u64 *)at(m, table(number)))[index] = entry;
}

static void set32(struct machine *m, int number, int index, u32 entry)
{
	((u32 *)at(m, table(number)))[index] = entry;
}

/*
 * Return the entry that maps an address of the window at a level.  An entry of two-level
 * tables has 4 bytes, and the caller must not access more.
 */
u64 *entry_of(struct machine *m, enum pgmode paging, u64 linear, int level)
{
	static const int tables[] = { WINDOW_PT, WINDOW_PD, WINDOW_PDPT, ROOT64 };

	if (paging == TWO_LEVEL)
		return at(m, table(level == PT ? WINDOW_PT32 : ROOT32) +
			  ((linear >> (12 + 10 * level)) & 0x3ff) * 4);
	return at(m, table(paging == PAE && level == PDPT ? ROOT_PAE : tables[level]) +
		  ((linear >> (12 + 9 * level)) & 0x1ff) * 8);
}

/* Return the entry of address 0 in the two-level tables. */
u32 *low_entry32(struct machine *m)
{
	return at(m, table(LOW_PT32));
}

static void two_level(struct machine *m)
{
	int i;

	for (i = 0; i < 1024; i++)
		set32(m, LOW_PT32, i, i < 512 ? i * PAGE_SIZE | P | RW :
						(i - 512) * PAGE_SIZE | ALL);
	/* Virtual-8086 mode has CPL 3, and its addresses are below ALIAS. */
	set32(m, LOW_PT32, CODE >> 12, CODE | ALL);
	set32(m, ROOT32, 0, table(LOW_PT32) | ALL);
	set32(m, ROOT32, (u32)WINDOW >> 22, table(WINDOW_PT32) | ALL);
	set32(m, WINDOW_PT32, (WINDOW >> 12) & 0x3ff, FRAME | P | RW);
	set32(m, WINDOW_PT32, ((WINDOW >> 12) & 0x3ff) + 1, FRAME2 | P | RW);
	set32(m, ROOT32, 1023, table(TOP_PT32) | ALL);
	set32(m, TOP_PT32, 1023, TOP_FRAME | P | RW);
}

static void low(struct machine *m)
{
	set(m, LOW_PD, 0, P | RW | PS);
	set(m, LOW_PD, 1, ALL | PS);
	set(m, WINDOW_PT, (WINDOW >> 12) & 0x1ff, FRAME | P | RW);
	set(m, WINDOW_PT, ((WINDOW >> 12) & 0x1ff) + 1, FRAME2 | P | RW);
	set(m, WINDOW_PD, (WINDOW >> 21) & 0x1ff, table(WINDOW_PT) | ALL);
	set(m, TOP_PD, 511, table(TOP_PT) | ALL);
	set(m, TOP_PT, 511, TOP_FRAME | P | RW);
}

static void pae(struct machine *m)
{
	set(m, ROOT_PAE, 0, table(LOW_PD) | P);
	set(m, ROOT_PAE, WINDOW >> 30, table(WINDOW_PD) | P);
	set(m, ROOT_PAE, 3, table(TOP_PD) | P);
}

static void four_level(struct machine *m)
{
	set(m, ROOT64, 0, table(LOW_PDPT) | ALL);
	set(m, LOW_PDPT, 0, table(LOW_PD) | ALL);
	set(m, LOW_PDPT, 1, table(WINDOW_PD) | ALL);
	set(m, LOW_PDPT, 3, table(TOP_PD) | ALL);
	set(m, ROOT64, WINDOW64 >> 39, table(WINDOW_PDPT) | ALL);
	set(m, WINDOW_PDPT, (WINDOW64 >> 30) & 0x1ff, table(WINDOW_PD) | ALL);
	set(m, ROOT64, 255, table(EDGE_PDPT) | ALL);
	set(m, ROOT64, 256, table(EDGE_PDPT) | ALL);
	set(m, EDGE_PDPT, 0, table(EDGE_PD) | ALL);
	set(m, EDGE_PDPT, 511, table(EDGE_PD) | ALL);
	set(m, EDGE_PD, 0, table(EDGE_PT) | ALL);
	set(m, EDGE_PD, 511, table(EDGE_PT) | ALL);
	set(m, EDGE_PT, 0, EDGE_FRAME | P | RW);
	set(m, EDGE_PT, 511, EDGE_FRAME | P | RW);
}

/* Move the window's page table with 8-byte entries to memory that the guest cannot write. */
void use_read_only_table(struct machine *m)
{
	u64 *entry = entry_of(m, PAE, WINDOW, PD);

	memcpy(at(m, READ_ONLY), at(m, table(WINDOW_PT)), PAGE_SIZE);
	*entry = (*entry & ~PAGE_MASK) | READ_ONLY;
}

void write_page_tables(struct machine *m)
{
	TEST_ASSERT(table(NR_TABLES) <= FRAME, "the page tables are too long");
	memset(at(m, TABLES), 0, NR_TABLES * PAGE_SIZE);
	two_level(m);
	low(m);
	pae(m);
	four_level(m);
}
