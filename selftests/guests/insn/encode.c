// SPDX-License-Identifier: GPL-2.0
/*
 * This file makes the bytes of a case's instruction, and the register values that lead
 * to the operand of the case.
 */
#include "insn.h"

const char * const insn_names[] = { "INVLPG", "INVPCID", "INVVPID", "INVEPT" };
const char * const mode_names[] = {
	"64-bit mode", "compatibility mode", "32-bit code", "16-bit code", "virtual-8086 mode",
	"real mode",
};

/* The number of a register in an instruction's encoding. */
static int number(enum reg reg)
{
	return reg - AX;
}

u64 *reg_of(struct kvm_regs *regs, enum reg reg)
{
	static const size_t offsets[NR_REGS] = {
		offsetof(struct kvm_regs, rax), offsetof(struct kvm_regs, rcx),
		offsetof(struct kvm_regs, rdx), offsetof(struct kvm_regs, rbx),
		offsetof(struct kvm_regs, rsp), offsetof(struct kvm_regs, rbp),
		offsetof(struct kvm_regs, rsi), offsetof(struct kvm_regs, rdi),
		offsetof(struct kvm_regs, r8), offsetof(struct kvm_regs, r9),
		offsetof(struct kvm_regs, r10), offsetof(struct kvm_regs, r11),
		offsetof(struct kvm_regs, r12), offsetof(struct kvm_regs, r13),
		offsetof(struct kvm_regs, r14), offsetof(struct kvm_regs, r15),
	};

	return (void *)regs + offsets[number(reg)];
}

static int native_asize(enum cpumode mode)
{
	switch (mode) {
	case LONG:
		return 64;
	case COMPAT:
	case PROT32:
		return 32;
	default:
		return 16;
	}
}

/* The form with its defaults. */
static struct form form_of(const struct test *test)
{
	struct form form = test->form;

	if (!form.asize)
		form.asize = native_asize(test->mode);
	if (!form.base && !form.index && !form.absolute)
		form.base = BX;
	if (form.index && !form.step)
		form.step = 0x20;
	return form;
}

static u8 *put(u8 *code, u32 value, int bits)
{
	memcpy(code, &value, bits / 8);
	return code + bits / 8;
}

/* Bits 7:6 of ModRM, by the displacement's size. */
static u8 mod_of(const struct form *form)
{
	return form->dsize == 0 ? 0x00 : form->dsize == 8 ? 0x40 : 0x80;
}

static u8 *operand16(u8 *code, const struct form *form, int field, s32 disp)
{
	static const u8 bases[8][2] = {
		{ BX, SI }, { BX, DI }, { BP, SI }, { BP, DI },
		{ SI, NOREG }, { DI, NOREG }, { BP, NOREG }, { BX, NOREG },
	};
	int rm;

	if (form->absolute) {
		*code++ = field << 3 | 6;
		return put(code, disp, 16);
	}
	for (rm = 0; rm < 8; rm++) {
		if (form->base == bases[rm][0] && form->index == bases[rm][1])
			break;
	}
	TEST_ASSERT(rm < 8, "no such form of 16-bit addresses");
	TEST_ASSERT(rm != 6 || form->dsize, "[bp] needs a displacement");
	*code++ = mod_of(form) | field << 3 | rm;
	return put(code, disp, form->dsize);
}

/* For 32 and 64 bits; there are no displacements of 16 bits. */
static u8 *operand(u8 *code, const struct form *form, enum cpumode mode, int field, s32 disp)
{
	int base = form->base ? number(form->base) & 7 : 5;
	int index = form->index ? number(form->index) & 7 : 4;

	if (form->base == IP || (form->absolute && mode != LONG)) {
		*code++ = field << 3 | 5;
		return put(code, disp, 32);
	}
	TEST_ASSERT(form->index != SP, "the stack pointer is no index");
	TEST_ASSERT(!form->base || base != 5 || form->dsize, "this base needs a displacement");
	if (!form->index && form->base && base != 4) {
		*code++ = mod_of(form) | field << 3 | base;
	} else {
		*code++ = (form->base ? mod_of(form) : 0) | field << 3 | 4;
		*code++ = form->shift << 6 | index << 3 | base;
		if (!form->base)
			return put(code, disp, 32);
	}
	return put(code, disp, form->dsize);
}

static u8 *prefixes(u8 *code, enum op insn, const struct test *test, const struct form *form)
{
	static const u8 overrides[] = { 0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };

	if (test->lock)
		*code++ = 0xf0;
	if (form->seg)
		*code++ = overrides[form->seg];
	if (form->asize != native_asize(test->mode))
		*code++ = 0x67;
	if (insn != INVLPG)
		*code++ = 0x66;
	return code;
}

/* Write the instruction; returns its length. */
int encode(u8 *code, enum op insn, const struct test *test, s32 disp)
{
	static const u8 opcodes[] = { 0x01, 0x82, 0x81, 0x80 };
	struct form form = form_of(test);
	int type = number(test->type_reg ?: CX);
	bool base8 = form.base >= R8 && form.base <= R15;
	u8 rex = 0, *p = prefixes(code, insn, test, &form);
	int field;

	/* In this field INVLPG has an extension of its opcode, the others the type register. */
	field = insn == INVLPG ? 7 : type & 7;
	if (insn != INVLPG && type >= 8)
		rex |= 0x44;
	if (form.index >= R8)
		rex |= 0x42;
	if (base8)
		rex |= 0x41;
	TEST_ASSERT(!rex || test->mode == LONG, "R8 to R15 exist in 64-bit mode only");
	if (rex)
		*p++ = rex;
	*p++ = 0x0f;
	if (insn != INVLPG)
		*p++ = 0x38;
	*p++ = opcodes[insn];
	if (form.direct)
		*p++ = 0xc0 | field << 3 | (number(form.base) & 7);
	else if (form.asize == 16)
		p = operand16(p, &form, field, disp);
	else
		p = operand(p, &form, test->mode, field, disp);
	return p - code;
}

/* Bits of a register above an address of this size, which must not count. */
static u64 rubbish(int asize, enum cpumode mode)
{
	if (asize == 16)
		return 0x5a5a0000;
	return asize == 32 && mode == LONG ? 0xa5a5a5a500000000 : 0;
}

/* Set base and index for an effective address; return the displacement. */
static s32 solve(struct kvm_regs *regs, const struct form *form, enum cpumode mode, u64 ea,
		 u64 next)
{
	u64 mask = form->asize == 64 ? ~0ull : BIT_ULL(form->asize) - 1;
	u64 rest = ea - form->disp;

	if (form->base == IP)
		return ea - next;
	if (form->base) {
		if (form->index)
			*reg_of(regs, form->index) = form->step | rubbish(form->asize, mode);
		rest -= form->step << form->shift;
		*reg_of(regs, form->base) = (rest & mask) | rubbish(form->asize, mode);
		return form->disp;
	}
	if (form->index) {
		TEST_ASSERT(!(rest & (BIT_ULL(form->shift) - 1)), "not a multiple of the scale");
		*reg_of(regs, form->index) = ((rest & mask) >> form->shift) |
					     rubbish(form->asize, mode);
		return form->disp;
	}
	return ea;
}

/*
 * Write the instruction at the start of the shot, and set registers and displacement so
 * that the operand is at the target.  The segment bases have to be set before.
 */
void aim(struct shot *shot, enum op insn, const struct test *test, u8 *code)
{
	struct form form = form_of(test);
	bool stack = form.base == BP || (form.base == SP && form.asize != 16);
	enum seg seg = form.seg ?: stack ? SS : DS;
	u64 base = segment_of(&shot->sregs, seg)->base;
	u64 target = test->at ?: DESC + alias_of(test);
	int width = width_of(test);
	s32 disp;

	if (test->mode == LONG && seg != FS && seg != GS)
		base = 0;
	shot->linear = test->offset ? base + target : target;
	if (width == 32)
		shot->linear &= 0xffffffff;
	shot->length = encode(code, insn, test, 0);
	disp = solve(&shot->regs, &form, test->mode, shot->linear - base,
		     shot->start + shot->length);
	encode(code, insn, test, disp);
}
