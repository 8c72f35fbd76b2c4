/* SPDX-License-Identifier: GPL-2.0 */
/* Page walks: what a case does to the tables, and how it is tried. */
#ifndef WALK_H
#define WALK_H

#include "groups.h"

#define P		BIT_ULL(0)
#define RW		BIT_ULL(1)
#define US		BIT_ULL(2)
#define CACHE		(BIT_ULL(3) | BIT_ULL(4))
#define ACCESSED	BIT_ULL(5)
#define DIRTY		BIT_ULL(6)
#define PS		BIT_ULL(7)
#define G		BIT_ULL(8)
#define IGNORED		(BIT_ULL(9) | BIT_ULL(10) | BIT_ULL(11))
#define IGNORED_HIGH	GENMASK_ULL(58, 52)
#define PKEY(k)		((u64)(k) << 59)
#define NX		BIT_ULL(63)
#define ADDRESS		GENMASK_ULL(51, 12)
#define RSVD		PF(9)		/* present, reserved bit */
#define LAST		0xff8		/* half of the operand is in the second page */

/* What a case does to the entries on its way. */
struct walk {
	const char *name;
	int level;
	u64 set, clear;
	bool second;		/* in the second page's entry, and not the first's */
	u16 offset;		/* of the operand in its page */
	u64 place;		/* default: by the window's own frames */
	enum { ANY, SMEP, SMAP, PKU, HUGE } needs;
	u64 cr4, cr4_off, efer_off, rflags;
	u32 want;
	const char *gap;
	u32 c;
};

/* Whether the CPU has what a case needs. */
bool has(struct machine *m, int feature);
/* The case with the tables' entry at its level changed. */
void try_walk(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walk);
void try_walks(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walks);
/* The same cases at every level. */
void at_levels(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walks);
/* One of some bits at a time, all with the same end. */
void each_bit(struct machine *m, enum op insn, enum pgmode paging, const struct walk *base,
	      int first, int last);
int levels(enum pgmode paging);

#endif /* WALK_H */
