// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of page walks: entries of any level, entries that map a page,
 * and entries of one kind of tables.
 */
#include "walk.h"

/* Entries of any level, and of 4 or 8 bytes. */
static const struct walk plain[] = {
	{ "as it is", .want = OK },
	{ "not present", .clear = P, .want = PF(0) },
	{ "not present, all else set", .set = 0xfffffffe, .clear = P, .want = PF(0) },
	{ "read-only", .clear = RW, .want = OK },
	{ "for the supervisor", .clear = US, .want = OK },
	{ "not cached", .set = CACHE, .want = OK },
	{ "ignored bits", .set = IGNORED, .want = OK },
	{ "accessed before", .set = ACCESSED, .want = OK },
	{ "SMAP, for the supervisor", .clear = US, .cr4 = X86_CR4_SMAP, .needs = SMAP, .want = OK },
	{ "no memory", .clear = GENMASK_ULL(30, 12), .set = NO_MEMORY, .want = PF(0) },
	{ }
};

/* Entries of any level, of 8 bytes. */
static const struct walk plain8[] = {
	{ "no execution", .set = NX, .want = OK },
	{ "bit 63, no NXE", .set = NX, .efer_off = EFER_NX, .want = RSVD },
	{ "bit 63 and not present, no NXE", .set = NX, .clear = P, .efer_off = EFER_NX,
	  .want = PF(0) },
	{ "all ones but P", .set = ~P, .clear = P, .want = PF(0) },
	{ }
};

static const struct walk leaves[] = {
	{ "global", .set = G, .want = OK },
	{ "bit 7 (PAT)", .set = PS, .want = OK },
	{ "user page", .set = US, .want = OK },
	{ "user page, SMAP", .set = US, .cr4 = X86_CR4_SMAP, .needs = SMAP, .want = PF(1) },
	{ "user page, SMAP, AC", .set = US, .cr4 = X86_CR4_SMAP, .rflags = X86_EFLAGS_AC,
	  .needs = SMAP, .want = OK },
	{ "supervisor page, SMAP", .cr4 = X86_CR4_SMAP, .needs = SMAP, .want = OK },
	{ "user page, read-only, no dirty flag", .set = US, .clear = RW, .want = OK },
	{ "no memory", .set = NO_MEMORY, .clear = GENMASK_ULL(30, 12), .want = REFUSED,
	  .gap = "no-memory", .c = STUCK },
	{ "last bytes of the page", .offset = 0xff0, .want = OK },
	{ "both pages", .offset = LAST, .want = OK },
	{ "both pages, one byte in the second", .offset = 0xff1, .want = OK },
	{ "both pages, one byte in the first", .offset = 0xfff, .want = OK },
	{ "first page not present", .offset = LAST, .clear = P, .want = PF(0) },
	{ "second page not present", .offset = LAST, .second = true, .clear = P, .want = PF2(0) },
	{ "second page not present, one byte", .offset = 0xff1, .second = true, .clear = P,
	  .want = PF2(0) },
	{ "second page not present, all but one byte", .offset = 0xfff, .second = true, .clear = P,
	  .want = PF2(0) },
	{ "second page not present, not touched", .offset = 0xff0, .second = true, .clear = P,
	  .want = OK },
	{ "second page for users, SMAP", .offset = LAST, .second = true, .set = US,
	  .cr4 = X86_CR4_SMAP, .needs = SMAP, .want = PF2(1) },
	{ "second page in no memory", .offset = LAST, .second = true, .set = NO_MEMORY,
	  .clear = GENMASK_ULL(30, 12), .want = OK, .gap = "no-memory", .c = STUCK },
	{ "first page in no memory", .offset = LAST, .set = NO_MEMORY,
	  .clear = GENMASK_ULL(30, 12), .want = REFUSED, .gap = "no-memory", .c = STUCK },
	{ }
};

/* Not in two-level tables, where the code is in a user page, and SMEP would forbid it. */
static const struct walk leaves8[] = {
	{ "user page, SMEP", .set = US, .cr4 = X86_CR4_SMEP, .needs = SMEP, .want = OK },
	{ "second page, bit 51", .offset = LAST, .second = true, .set = BIT_ULL(51),
	  .want = PF2(9) },
	{ "second page, bit 63, no NXE", .offset = LAST, .second = true, .set = NX,
	  .efer_off = EFER_NX, .want = PF2(9) },
	{ "first page not present, second reserved", .offset = LAST, .clear = P, .want = PF(0) },
	{ }
};

/* Protection keys: key 1 forbids accesses, key 2 forbids writes. */
#define PKRU	(BIT(2) | BIT(5))

static const struct walk keys[] = {
	{ "user page, key 0", .set = US, .cr4 = X86_CR4_PKE, .needs = PKU, .want = OK },
	{ "user page, key 1", .set = US | PKEY(1), .cr4 = X86_CR4_PKE, .needs = PKU,
	  .want = PF(0x21) },
	{ "user page, key 2", .set = US | PKEY(2), .cr4 = X86_CR4_PKE, .needs = PKU, .want = OK },
	{ "user page, key 15", .set = US | PKEY(15), .cr4 = X86_CR4_PKE, .needs = PKU,
	  .want = OK },
	{ "supervisor page, key 1", .set = PKEY(1), .cr4 = X86_CR4_PKE, .needs = PKU, .want = OK },
	{ "user page, key 1, PKE off", .set = US | PKEY(1), .needs = PKU, .want = OK },
	{ "user page, key 1, no WP", .set = US | PKEY(1), .cr4 = X86_CR4_PKE, .needs = PKU,
	  .want = PF(0x21) },
	{ "user page, key 1, SMAP, AC", .set = US | PKEY(1), .cr4 = X86_CR4_PKE | X86_CR4_SMAP,
	  .rflags = X86_EFLAGS_AC, .needs = PKU, .want = PF(0x21) },
	{ "second page, user, key 1", .set = US | PKEY(1), .cr4 = X86_CR4_PKE, .second = true,
	  .offset = LAST, .needs = PKU, .want = PF2(0x21) },
	{ }
};

static void set_pkru(struct machine *m)
{
	static const u8 wrpkru[] = { 0x0f, 0x01, 0xef };
	struct kvm_regs regs = { .rax = PKRU };

	if (has(m, PKU))
		execute(m, wrpkru, sizeof(wrpkru), &regs, m->reset.cr4 | X86_CR4_PKE);
}

/* A page of 2 MiB, 4 MiB or 1 GiB that contains LARGE_FRAME. */
static struct walk large_page(int level, u64 base)
{
	return (struct walk) {
		"large page", .level = level, .set = PS | base, .clear = ADDRESS,
		.place = LARGE_FRAME, .want = OK, .needs = level == PDPT ? HUGE : ANY,
	};
}

static void large_pages(struct machine *m, enum op insn, enum pgmode paging, int level, u64 base,
			int shift)
{
	struct walk walk = large_page(level, base);

	try_walk(m, insn, paging, &walk);
	walk.name = "large page, bit 12 (PAT), global";
	walk.set |= BIT_ULL(12) | G;
	try_walk(m, insn, paging, &walk);
	walk.name = "large page for the supervisor, across a page";
	walk.clear |= US;
	walk.offset = LAST;
	walk.place += LAST;
	try_walk(m, insn, paging, &walk);
	walk = large_page(level, base);
	walk.name = "large page for users, SMAP";
	walk.set |= US;
	walk.cr4 = X86_CR4_SMAP;
	if (has(m, SMAP)) {
		walk.want = PF(1);
		try_walk(m, insn, paging, &walk);
	}
	if (paging == TWO_LEVEL)
		return;
	walk = large_page(level, base);
	walk.name = "large page, reserved";
	walk.want = RSVD;
	each_bit(m, insn, paging, &walk, 13, shift - 1);
	each_bit(m, insn, paging, &walk, max_phys(m), 51);
}

static void reserved8(struct machine *m, enum op insn, enum pgmode paging)
{
	struct walk walk = { "reserved", .want = RSVD };

	for (walk.level = PT; walk.level < levels(paging); walk.level++) {
		if (paging == PAE && walk.level == PDPT)
			continue;
		each_bit(m, insn, paging, &walk, max_phys(m), paging == PAE ? 62 : 51);
	}
}

/*
 * A table in memory that the guest cannot write, such as ROM: the walk continues, and
 * sets no accessed flag there.
 */
static void read_only_table(struct machine *m, enum op insn, enum cpumode mode)
{
	struct test test = {
		"the last table is read-only", .mode = mode, .at = WINDOW, .place = FRAME,
		.want = OK,
	};
	u8 table[PAGE_SIZE];

	write_page_tables(m);
	use_read_only_table(m);
	memcpy(table, at(m, READ_ONLY), PAGE_SIZE);
	try(m, insn, &test);
	count_effect(m, "and keeps its flags", !memcmp(table, at(m, READ_ONLY), PAGE_SIZE), 0);
	test.name = "the operand is read-only";
	test.at = WINDOW;
	test.place = READ_ONLY + PAGE_SIZE;
	write_page_tables(m);
	*entry_of(m, PAE, WINDOW, PT) = (READ_ONLY + PAGE_SIZE) | P;
	try(m, insn, &test);
	write_page_tables(m);
}

/* The host has unmapped the operand's page: C and Rust exit to user space. */
static void unreadable_memory(struct machine *m, enum op insn, enum cpumode mode)
{
	struct test test = {
		"memory that the host cannot read", .mode = mode, .at = WINDOW, .place = FRAME,
		.want = STUCK,
	};
	void *frame = at(m, FRAME);

	write_page_tables(m);
	m->unreadable = frame;
	try(m, insn, &test);
	m->unreadable = NULL;
}

/* The load of CR3 loads the PDPTEs: later changes in memory do not count. */
static void loaded_pdptes(struct machine *m, enum op insn)
{
	u64 *entry = entry_of(m, PAE, WINDOW, PDPT);
	struct test test = {
		"PDPTE cleared since CR3 was loaded", .mode = PROT32, .at = WINDOW,
		.place = FRAME, .store = addr_hva2gpa(m->vm, entry), .was = *entry, .want = OK,
	};

	try(m, insn, &test);
	test.name = "PDPTE set since CR3 was loaded";
	test.word = test.was;
	test.was = 0;
	test.want = PF(0);
	try(m, insn, &test);
	write_page_tables(m);
}

void walk_four_level(struct machine *m, enum op insn)
{
	struct walk top = { "reserved", .level = PML4, .set = PS, .want = RSVD };
	static const struct walk ignored[] = {
		{ "upper ignored bits", .set = IGNORED_HIGH, .want = OK }, { }
	};

	set_pkru(m);
	at_levels(m, insn, FOUR_LEVEL, plain);
	at_levels(m, insn, FOUR_LEVEL, plain8);
	at_levels(m, insn, FOUR_LEVEL, ignored);
	try_walks(m, insn, FOUR_LEVEL, leaves);
	try_walks(m, insn, FOUR_LEVEL, leaves8);
	try_walks(m, insn, FOUR_LEVEL, keys);
	reserved8(m, insn, FOUR_LEVEL);
	each_bit(m, insn, FOUR_LEVEL, &top, 7, 7);
	large_pages(m, insn, FOUR_LEVEL, PD, LARGE_FRAME & ~0x1fffffull, 21);
	if (has(m, HUGE))
		large_pages(m, insn, FOUR_LEVEL, PDPT, 0, 30);
	read_only_table(m, insn, LONG);
	unreadable_memory(m, insn, LONG);
}

void walk_pae(struct machine *m, enum op insn)
{
	struct walk absent = { "not present", .level = PDPT, .clear = P, .want = PF(0) };

	at_levels(m, insn, PAE, plain);
	at_levels(m, insn, PAE, plain8);
	/* There is no case of reserved bits in a PDPTE: a load of CR3 would fail. */
	try_walk(m, insn, PAE, &absent);
	try_walks(m, insn, PAE, leaves);
	try_walks(m, insn, PAE, leaves8);
	reserved8(m, insn, PAE);
	large_pages(m, insn, PAE, PD, LARGE_FRAME & ~0x1fffffull, 21);
	read_only_table(m, insn, PROT32);
	loaded_pdptes(m, insn);
}

/*
 * With PSE-36, bits 20:13 of a 4 MiB page's entry are bits 39:32 of the page's address,
 * up to the CPU's width.  A read without memory returns ones.
 */
static void pse36(struct machine *m, enum op insn)
{
	int limit = max_phys(m) < 40 ? max_phys(m) : 40, bit;
	struct walk walk = large_page(PD, 0);

	for (bit = 14; bit <= 21; bit++) {
		bool address = bit + 19 < limit && bit < 21;
		char name[40];

		snprintf(name, sizeof(name), "4 MiB page, bit %d", bit);
		walk.name = name;
		walk.set = PS | BIT_ULL(bit);
		walk.want = address ? REFUSED : RSVD;
		walk.gap = !address ? NULL : bit < 17 ? "no-memory" : "pse36";
		walk.c = bit < 17 ? STUCK : RSVD;
		try_walk(m, insn, TWO_LEVEL, &walk);
	}
	walk = large_page(PD, BIT_ULL(13));
	walk.name = "4 MiB page above 4 GiB";
	walk.place = HIGH_MEMORY + LARGE_FRAME;
	try_walk(m, insn, TWO_LEVEL, &walk);
}

/* C has another CR2 if the operand continues at address 0. */
static void not_at_zero(struct machine *m, enum op insn)
{
	struct test test = {
		"two-level, nothing at address 0", .mode = PROT32, .paging = TWO_LEVEL,
		.at = 0xfffffff8, .want = PF2(0), GAP("wrap", PF(0)), .c_cr2 = 0x100000000,
	};

	write_page_tables(m);
	*low_entry32(m) &= ~(u32)P;
	try(m, insn, &test);
	write_page_tables(m);
}

void walk_two_level(struct machine *m, enum op insn)
{
	struct test high_cr3 = {
		"upper half of CR3", .mode = PROT32, .paging = TWO_LEVEL, .cr3 = BIT_ULL(32),
		.want = OK,
	};
	/* Without PSE, bit 7 is ignored: the entry refers to a table. */
	struct walk ignored = {
		"bit 7 without PSE", .level = PD, .set = PS, .cr4_off = X86_CR4_PSE, .want = OK,
	};

	at_levels(m, insn, TWO_LEVEL, plain);
	try_walks(m, insn, TWO_LEVEL, leaves);
	try_walk(m, insn, TWO_LEVEL, &ignored);
	large_pages(m, insn, TWO_LEVEL, PD, 0, 22);
	pse36(m, insn);
	/* On shadow paging, KVM itself would look for the tables above 4 GiB. */
	if (m->ept)
		try(m, insn, &high_cr3);
	not_at_zero(m, insn);
}
