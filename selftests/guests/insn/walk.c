// SPDX-License-Identifier: GPL-2.0
/*
 * This file tries the walk through page tables to an operand: every level, every wrong
 * bit of an entry, and the flags that the walk sets.
 *
 * The host writes the entries.  The guest itself never accesses the window, so only the
 * walk by the instruction's handler changes the entries.
 */
#include "walk.h"

static const char * const level_names[] = { "PTE", "PDE", "PDPTE", "PML4E" };

bool has(struct machine *m, int feature)
{
	switch (feature) {
	case SMEP:
		return vcpu_get_cpuid_entry(m->vcpu, 7)->ebx & BIT(7);
	case SMAP:
		return vcpu_get_cpuid_entry(m->vcpu, 7)->ebx & BIT(20);
	case PKU:
		return vcpu_get_cpuid_entry(m->vcpu, 7)->ecx & BIT(3);
	case HUGE:
		return vcpu_get_cpuid_entry(m->vcpu, 0x80000001)->edx & BIT(26);
	default:
		return true;
	}
}

int levels(enum pgmode paging)
{
	return paging == FOUR_LEVEL ? 4 : paging == PAE ? 3 : 2;
}

static u64 window(enum pgmode paging)
{
	return paging == FOUR_LEVEL ? WINDOW64 : WINDOW;
}

/* Entries have 4 bytes in two-level tables. */
static u64 read_entry(enum pgmode paging, u64 *entry)
{
	return paging == TWO_LEVEL ? *(u32 *)entry : *entry;
}

static void write_entry(enum pgmode paging, u64 *entry, u64 value)
{
	if (paging == TWO_LEVEL)
		*(u32 *)entry = value;
	else
		*entry = value;
}

static void change(struct machine *m, enum pgmode paging, const struct walk *walk)
{
	u64 linear = window(paging) + (walk->second ? PAGE_SIZE : 0);
	u64 *entry = entry_of(m, paging, linear, walk->level);

	write_entry(paging, entry, (read_entry(paging, entry) & ~walk->clear) | walk->set);
}

/* A successful walk sets the accessed flags, and no dirty flag: the access is a read. */
static bool flags_good(struct machine *m, enum pgmode paging, u64 linear)
{
	u64 entry = 0;
	int level;

	for (level = levels(paging) - 1; level >= 0; level--) {
		entry = read_entry(paging, entry_of(m, paging, linear, level));
		/* In PAE paging, entries of the PDPT have no accessed flag. */
		if (paging == PAE && level == PDPT)
			continue;
		if (!(entry & ACCESSED))
			return false;
		if (level && entry & PS)
			break;
	}
	return !(entry & DIRTY);
}

static void check_flags(struct machine *m, enum pgmode paging, const struct test *test)
{
	u64 linear = window(paging);
	bool good = flags_good(m, paging, linear);

	if (test->at + 15 - linear >= PAGE_SIZE)
		good = good && flags_good(m, paging, linear + PAGE_SIZE);
	if (good)
		return;
	m->failed++;
	printf("%s: %s: wanted accessed flags and no dirty flag, got something else\n", m->group,
	       test->name);
}

void try_walk(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walk)
{
	static const char * const names[] = { "", "", "two-level", "PAE", "4-level" };
	int failed = m->failed;
	struct test test = {
		.mode = paging == FOUR_LEVEL ? LONG : PROT32, .paging = paging,
		.at = window(paging) + walk->offset, .cr4 = walk->cr4, .cr4_off = walk->cr4_off,
		.efer_off = walk->efer_off, .rflags = walk->rflags, .want = walk->want,
		.gap = walk->gap, .c = walk->c, .place = walk->place ?: FRAME + walk->offset,
	};
	char name[100];

	if (!has(m, walk->needs))
		return;
	snprintf(name, sizeof(name), "%s, %s, %s", names[paging], level_names[walk->level],
		 walk->name);
	test.name = name;
	write_page_tables(m);
	change(m, paging, walk);
	try(m, insn, &test);
	/* flags_good() takes an entry with PS set for a large page, which is wrong without PSE. */
	if (m->failed == failed && walk->want == OK && !walk->gap && !walk->cr4_off)
		check_flags(m, paging, &test);
}

void try_walks(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walks)
{
	for (; walks->name; walks++)
		try_walk(m, insn, paging, walks);
}

void each_bit(struct machine *m, enum op insn, enum pgmode paging, const struct walk *base,
	      int first, int last)
{
	struct walk walk = *base;
	char name[60];
	int bit;

	for (bit = first; bit <= last; bit++) {
		snprintf(name, sizeof(name), "%s, bit %d", base->name, bit);
		walk.name = name;
		walk.set = base->set | BIT_ULL(bit);
		try_walk(m, insn, paging, &walk);
	}
}

void at_levels(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walks)
{
	struct walk walk;

	for (; walks->name; walks++) {
		walk = *walks;
		for (walk.level = PT; walk.level < levels(paging); walk.level++) {
			if (paging == PAE && walk.level == PDPT)
				break;
			/* leaves[] has a case of its own for this. */
			if (walk.level == PT && walk.set == NO_MEMORY)
				continue;
			try_walk(m, insn, paging, &walk);
		}
	}
}
