/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header describes the cases of page walks: the change of an entry, and the
 * functions that try a case.
 */
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
#define LAST		0xff8		/* the operand's second half is in the second page */

/* A case that changes an entry of the walk. */
struct walk {
	const char *name;
	int level;
	u64 set, clear;
	bool second;		/* change the second page's entry, not the first page's */
	u16 offset;		/* of the operand in its page */
	u64 place;		/* default: in the window's own frames */
	enum { ANY, SMEP, SMAP, PKU, HUGE } needs;
	u64 cr4, cr4_off, efer_off, rflags;
	u32 want;
	const char *gap;
	u32 c;
};

/* Return whether the CPU has a feature that a case needs. */
bool has(struct machine *m, int feature);
/* Try a case with its entry changed. */
void try_walk(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walk);
void try_walks(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walks);
/* Try all cases of a table at every level. */
void at_levels(struct machine *m, enum op insn, enum pgmode paging, const struct walk *walks);
/* Try a case with one of some bits set at a time, all with the same result. */
void each_bit(struct machine *m, enum op insn, enum pgmode paging, const struct walk *base,
	      int first, int last);
int levels(enum pgmode paging);

#endif /* WALK_H */
