// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of operands and page tables in an internal memslot of KVM.
 *
 * Without unrestricted guests, KVM has a memslot for the TSS of real mode.  The guest
 * reads and writes that memory as any other.  KVM reads operands from every memslot, and
 * entries of page tables only from the memslots of user space.
 */
#include "walk.h"

#define PAGES		3	/* of the memslot */
/* The base of the I/O permission map, which KVM has set to 0x88 between zeroes. */
#define IOPB_BASE	(INTERNAL + 0x66)
#define WRITTEN		(INTERNAL + 0x800)
/* The last four bytes of a page; the operand's other bytes are in the next page. */
#define SPLIT		0xffc
/* The index of the window's first page is the same at each level. */
#define INDEX		1

static u64 *entry(struct machine *m, u64 linear, int level)
{
	return entry_of(m, FOUR_LEVEL, linear, level);
}

static void map(struct machine *m, u64 first, u64 second)
{
	write_page_tables(m);
	*entry(m, WINDOW64, PT) = first | P | RW;
	*entry(m, WINDOW64 + PAGE_SIZE, PT) = second | P | RW;
}

/*
 * Only the guest can write: the host has no address for the memory.  Each page of the
 * memslot has its own linear address, since a shadow page table does not follow what the
 * host changes in the guest's tables.
 */
static void write_word(struct machine *m, u64 address, u32 word)
{
	static const u8 mov_eax_to_rbx[] = { 0x89, 0x03 };
	u64 linear = WINDOW64 + 2 * PAGE_SIZE + address - INTERNAL;
	struct kvm_regs regs = { .rax = word, .rbx = linear };

	write_page_tables(m);
	*entry(m, linear, PT) = (address & PAGE_MASK) | P | RW;
	execute(m, mov_eax_to_rbx, sizeof(mov_eax_to_rbx), &regs, m->reset.cr4);
}

static void write_words(struct machine *m, u64 address, const void *from, int count)
{
	u32 words[4];
	int i;

	memcpy(words, from, count * sizeof(*words));
	for (i = 0; i < count; i++)
		write_word(m, address + i * sizeof(*words), words[i]);
}

/* Try an operand of which the guest has written the parts that are in the memslot. */
static void operand(struct machine *m, enum op insn, const char *name, u64 first, u64 second,
		    u64 offset, u32 want)
{
	struct test test = {
		name, .at = WINDOW64 + offset, .place = first + offset, .want = want,
	};

	map(m, first, second);
	try(m, insn, &test);
}

static void operands(struct machine *m, enum op insn)
{
	u64 low[] = { [INVPCID] = 0, [INVVPID] = 1, [INVEPT] = good_eptp() };
	u64 good[2] = { low[insn], 0 }, bad[2] = { ~0ull, 0 };
	const u32 *words = (const u32 *)good;

	/* The I/O map's base is a PCID and a VPID, but no EPTP. */
	operand(m, insn, "internal memslot, what KVM wrote", INTERNAL, FRAME2,
		IOPB_BASE % PAGE_SIZE, insn == INVEPT ? VMFAIL : OK);
	write_words(m, WRITTEN, good, 4);
	operand(m, insn, "internal memslot, what the guest wrote", INTERNAL, FRAME2,
		WRITTEN % PAGE_SIZE, OK);
	write_words(m, WRITTEN, bad, 4);
	operand(m, insn, "internal memslot, reserved bits", INTERNAL, FRAME2, WRITTEN % PAGE_SIZE,
		REFUSED);
	write_words(m, INTERNAL + SPLIT, good, 4);
	operand(m, insn, "internal memslot, across a page", INTERNAL, INTERNAL + PAGE_SIZE, SPLIT,
		OK);
	memcpy(at(m, FRAME2), words + 1, 3 * sizeof(*words));
	operand(m, insn, "first part in an internal memslot", INTERNAL, FRAME2, SPLIT, OK);
	write_words(m, INTERNAL, words + 1, 3);
	operand(m, insn, "second part in an internal memslot", FRAME, INTERNAL, SPLIT, OK);
	write_words(m, INTERNAL + PAGES * PAGE_SIZE - 16, good, 4);
	operand(m, insn, "last bytes of an internal memslot", INTERNAL + (PAGES - 1) * PAGE_SIZE,
		FRAME2, PAGE_SIZE - 16, OK);
}

/* The second part is in no memory, where all bits are set. */
static void beyond_the_end(struct machine *m, enum op insn)
{
	struct test test = {
		"half behind an internal memslot", .at = WINDOW64 + SPLIT,
		.place = INTERNAL + (PAGES - 1) * PAGE_SIZE + SPLIT, .want = REFUSED,
		GAP("no-memory", STUCK),
	};

	map(m, INTERNAL + (PAGES - 1) * PAGE_SIZE, INTERNAL + PAGES * PAGE_SIZE);
	try(m, insn, &test);
}

/* Put an entry at a level, and its table in the memslot: the walk finds no entry there. */
static void table(struct machine *m, enum op insn, const char *name, int level, u64 value)
{
	struct test test = { name, .at = WINDOW64, .place = FRAME, .want = PF(0) };

	write_words(m, INTERNAL + PAGE_SIZE + INDEX * sizeof(value), &value, 2);
	write_page_tables(m);
	*entry(m, WINDOW64, level + 1) = (INTERNAL + PAGE_SIZE) | P | RW | US;
	try(m, insn, &test);
}

static void tables(struct machine *m, enum op insn)
{
	u64 pde, pdpte;

	write_page_tables(m);
	pde = *entry(m, WINDOW64, PD);
	pdpte = *entry(m, WINDOW64, PDPT);
	table(m, insn, "page table in an internal memslot", PT, FRAME | P | RW);
	table(m, insn, "page table and operand in an internal memslot", PT, INTERNAL | P | RW);
	table(m, insn, "page directory in an internal memslot", PD, pde);
	table(m, insn, "PDPT in an internal memslot", PDPT, pdpte);
	write_page_tables(m);
}

static void slots(struct machine *m, enum op insn)
{
	operands(m, insn);
	beyond_the_end(m, insn);
	tables(m, insn);
}

void invpcid_slots(struct machine *m)
{
	static const struct test off = {
		"internal memslot, paging off", .mode = PROT32, .paging = OFF, .at = IOPB_BASE,
		.want = OK,
	};

	slots(m, INVPCID);
	try(m, INVPCID, &off);
}

void invvpid_slots(struct machine *m)
{
	slots(m, INVVPID);
}

void invept_slots(struct machine *m)
{
	slots(m, INVEPT);
}
