// SPDX-License-Identifier: GPL-2.0
/*
 * This file sets the CPU's modes, as control registers, segments and descriptor tables.
 */
#include "insn.h"

/* Selectors of the gates; the hidden parts of the segments have bases, limits and types. */
#define CODE64		0x08
#define DATA32		0x10
#define CODE32		0x18
#define TSS_SELECTOR	0x20

/* The width of a linear address. */
int width_of(const struct test *test)
{
	return test->mode == LONG ? 64 : 32;
}

/* The offset of CPL 3's linear addresses from physical addresses. */
u64 alias_of(const struct test *test)
{
	return test->user && test->paging != OFF ? ALIAS : 0;
}

struct kvm_segment *segment_of(struct kvm_sregs *sregs, enum seg seg)
{
	struct kvm_segment *segments[] = {
		NULL, &sregs->es, &sregs->cs, &sregs->ss, &sregs->ds, &sregs->fs, &sregs->gs,
	};

	return segments[seg];
}

static struct kvm_segment flat(u16 selector, u8 type, bool user)
{
	return (struct kvm_segment) {
		.selector = selector | (user ? 3 : 0), .limit = 0xffffffff, .type = type,
		.present = 1, .dpl = user ? 3 : 0, .db = 1, .s = 1, .g = 1,
	};
}

/* A segment of real mode, or of virtual-8086 mode, where all segments have DPL 3. */
static struct kvm_segment plain(u64 base, bool vm86)
{
	return (struct kvm_segment) {
		.base = base, .limit = 0xffff, .selector = base >> 4, .type = 3,
		.present = 1, .dpl = vm86 ? 3 : 0, .s = 1,
	};
}

static void reshape(struct kvm_sregs *sregs, const struct shape *shape)
{
	struct kvm_segment *segment = segment_of(sregs, shape->seg);

	segment->base = shape->base;
	if (shape->type)
		segment->type = shape->type;
	if (shape->limited) {
		segment->limit = shape->limit;
		/* A descriptor's limit has 20 bits, in bytes or in pages. */
		segment->g = shape->limit >= BIT(20);
		TEST_ASSERT(!segment->g || (shape->limit & 0xfff) == 0xfff,
			    "%x is not the limit of a segment", shape->limit);
	}
	if (shape->small)
		segment->db = 0;
	if (shape->unusable) {
		segment->unusable = 1;
		segment->present = 0;
		segment->selector = 0;
	}
}

static void set_segments(struct kvm_sregs *sregs, const struct test *test)
{
	enum seg seg;

	for (seg = ES; seg <= GS; seg++) {
		if (test->mode == VM86 || test->mode == REAL)
			*segment_of(sregs, seg) = plain(0, test->mode == VM86);
		else
			*segment_of(sregs, seg) = flat(DATA32, 3, test->user);
	}
	if (test->mode == LONG || test->mode == COMPAT || test->mode == PROT32 ||
	    test->mode == PROT16) {
		sregs->cs = flat(test->mode == LONG ? CODE64 : CODE32, 0xb, test->user);
		sregs->cs.l = test->mode == LONG;
		sregs->cs.db = test->mode == COMPAT || test->mode == PROT32;
	}
	if (test->shape.seg)
		reshape(sregs, &test->shape);
	sregs->tr = (struct kvm_segment) {
		.base = sregs->efer & EFER_LMA ? TSS64 : TSS32, .limit = 0x67,
		.selector = TSS_SELECTOR, .type = 0xb, .present = 1,
	};
	sregs->ldt = (struct kvm_segment) { .unusable = 1 };
}

static void set_tables(struct kvm_sregs *sregs, enum cpumode mode)
{
	sregs->gdt.base = GDT;
	sregs->gdt.limit = 0x2f;
	if (mode == REAL) {
		sregs->idt.base = 0;
		sregs->idt.limit = 0x3ff;
	} else if (sregs->efer & EFER_LMA) {
		sregs->idt.base = IDT64;
		sregs->idt.limit = 32 * 16 - 1;
	} else {
		sregs->idt.base = IDT32;
		sregs->idt.limit = 32 * 8 - 1;
	}
}

enum pgmode paging_of(const struct test *test)
{
	if (test->paging != AUTO)
		return test->paging;
	if (test->mode == LONG || test->mode == COMPAT)
		return FOUR_LEVEL;
	if (test->mode == VM86)
		return TWO_LEVEL;
	return test->mode == REAL ? OFF : PAE;
}

void set_mode(struct kvm_sregs *sregs, const struct test *test)
{
	enum pgmode paging = paging_of(test);

	sregs->cr0 = X86_CR0_NE | X86_CR0_ET | X86_CR0_WP | test->cr0;
	if (test->mode != REAL)
		sregs->cr0 |= X86_CR0_PE;
	if (paging != OFF)
		sregs->cr0 |= X86_CR0_PG;
	sregs->cr4 |= X86_CR4_PGE | X86_CR4_PSE | test->cr4;
	sregs->cr4 &= ~test->cr4_off;
	sregs->efer = EFER_NX;
	if (paging == FOUR_LEVEL)
		sregs->efer |= EFER_LME | EFER_LMA;
	sregs->efer &= ~test->efer_off;
	if (paging == FOUR_LEVEL || paging == PAE)
		sregs->cr4 |= X86_CR4_PAE;
	sregs->cr3 = (TABLES + paging * PAGE_SIZE) | test->cr3;
	set_segments(sregs, test);
	set_tables(sregs, test->mode);
}
