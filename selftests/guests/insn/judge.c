// SPDX-License-Identifier: GPL-2.0
/*
 * This file runs a case, and prints a line if its result is not the wanted one.
 */
#include <sys/mman.h>

#include "insn.h"

static const char *const vectors[32] = {
	[0] = "#DE", [1] = "#DB", [3] = "#BP", [6] = "#UD", [7] = "#NM", [8] = "#DF",
	[10] = "#TS", [11] = "#NP", [12] = "#SS", [13] = "#GP", [14] = "#PF", [17] = "#AC",
};

/* Exceptions with an error code: 8, 10 to 14, 17 and 21. */
#define HAS_ERROR	0x227d00u

static void name_end(char *text, size_t size, u32 end, u64 cr2)
{
	int vector = end & 0x1f, error = (end >> 16) & 0x7fff;
	int length;

	if (end == OK)
		snprintf(text, size, "success");
	else if (end == VMFAIL)
		snprintf(text, size, "VMfailValid 28");
	else if (end == VMFAIL_INVALID)
		snprintf(text, size, "VMfailInvalid");
	else if (end == STUCK)
		snprintf(text, size, "an exit to user space");
	if (!(end & 0x100))
		return;
	length = snprintf(text, size, "%s", vectors[vector] ?: "another exception");
	if (HAS_ERROR & BIT(vector))
		length += snprintf(text + length, size - length, "(%#x)", error);
	if (vector == PF_VECTOR)
		snprintf(text + length, size - length, " at %#lx", cr2);
}

/* Add an error to a result. */
static void __printf(2, 3) remark(struct result *result, const char *format, ...)
{
	size_t used = strlen(result->remark);
	va_list args;

	va_start(args, format);
	vsnprintf(result->remark + used, sizeof(result->remark) - used, format, args);
	va_end(args);
}

static u64 mask_of(const struct test *test)
{
	return test->mode == LONG ? ~0ull : 0xffffffff;
}

/* Check that no register changed. */
static void check_registers(struct result *result, const struct test *test, struct kvm_regs *was,
			    struct kvm_regs *is)
{
	static const char * const names[NR_REGS] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
	};
	enum reg reg;

	for (reg = AX; reg <= R15; reg++) {
		u64 before = *reg_of(was, reg) & mask_of(test);
		u64 after = *reg_of(is, reg) & mask_of(test);

		if (before != after)
			remark(result, ", %s %#lx became %#lx", names[reg - AX], before, after);
	}
}

static void check_flags(struct result *result, u64 wanted, u64 got)
{
	if (wanted != got)
		remark(result, ", flags %#lx instead of %#lx", got, wanted);
}

static void check_rip(struct result *result, u64 wanted, u64 got)
{
	if (wanted != got)
		remark(result, ", rip %#lx instead of %#lx", got, wanted);
}

/* The code after the instruction ran: the flags say whether the instruction succeeded. */
static void passed(struct machine *m, struct result *result, enum op insn,
		   const struct test *test, struct shot *shot)
{
	u64 kept = shot->regs.rflags;
	struct kvm_regs regs;

	vcpu_regs_get(m->vcpu, &regs);
	if (test->effect)
		shot->regs.rax = 0x22222222;
	check_registers(result, test, &shot->regs, &regs);
	check_rip(result, shot->end, regs.rip);
	result->end = OK;
	if (insn == INVVPID || insn == INVEPT) {
		kept &= ~ARITHMETIC;
		if (regs.rflags & X86_EFLAGS_CF) {
			result->end = VMFAIL_INVALID;
			kept |= X86_EFLAGS_CF;
		} else if (regs.rflags & X86_EFLAGS_ZF) {
			u64 error = vm_instruction_error(m);

			result->end = VMFAIL;
			kept |= X86_EFLAGS_ZF;
			if (error != VMERR_INVALID_OPERAND)
				remark(result, ", error %lu", error);
		}
	}
	check_flags(result, kept, regs.rflags);
}

/* Pop a word of the handler's size from the stack of an exception. */
static u64 pop(struct machine *m, struct kvm_regs *regs, struct kvm_sregs *sregs, int size)
{
	u64 address = regs->rsp, value = 0;

	if (!(sregs->efer & EFER_LMA))
		address += sregs->ss.base;
	memcpy(&value, at(m, (u32)address % ALIAS), size);
	regs->rsp += size;
	return value;
}

static void trapped(struct machine *m, struct result *result, enum op insn,
		    const struct test *test, struct shot *shot, int vector)
{
	bool is_long = test->mode == LONG || test->mode == COMPAT;
	int size = is_long ? 8 : test->mode == REAL ? 2 : 4;
	u64 error = 0, rip, rflags, kept = shot->regs.rflags;
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	vcpu_regs_get(m->vcpu, &regs);
	vcpu_sregs_get(m->vcpu, &sregs);
	if (test->mode != REAL) {
		kept |= X86_EFLAGS_RF;
		if (HAS_ERROR & BIT(vector))
			error = pop(m, &regs, &sregs, size);
	}
	rip = pop(m, &regs, &sregs, size);
	pop(m, &regs, &sregs, size);
	rflags = pop(m, &regs, &sregs, size);
	if (is_long || test->user || test->mode == VM86)
		regs.rsp = pop(m, &regs, &sregs, size);
	result->end = EXC(vector, (u32)error);
	result->cr2 = sregs.cr2;
	check_registers(result, test, &shot->regs, &regs);
	/* The trap comes after the instruction, with the flags that the instruction set. */
	if (vector == DB_VECTOR) {
		rip -= shot->length;
		kept &= ~X86_EFLAGS_RF;
		if (insn == INVVPID || insn == INVEPT)
			kept &= ~ARITHMETIC;
	}
	check_rip(result, shot->start, rip);
	check_flags(result, kept, rflags);
	if (vector != PF_VECTOR && sregs.cr2 != shot->sregs.cr2)
		remark(result, ", cr2 became %#lx", result->cr2);
}

static void stuck(struct machine *m, struct result *result)
{
	struct kvm_run *run = m->vcpu->run;
	struct kvm_vcpu_events events = { };
	struct kvm_regs regs;

	vcpu_regs_get(m->vcpu, &regs);
	result->end = STUCK;
	snprintf(result->remark, sizeof(result->remark), ": %s, rip %#lx",
		 exit_reason_str(run->exit_reason), (u64)regs.rip);
	vcpu_events_set(m->vcpu, &events);
}

static void shoot(struct machine *m, struct shot *shot)
{
	int r;

	vcpu_sregs_set(m->vcpu, &shot->sregs);
	vcpu_regs_set(m->vcpu, &shot->regs);
	/* Livepatch may interrupt KVM_RUN by a fake signal. */
	do {
		r = __vcpu_run(m->vcpu);
	} while (r && errno == EINTR);
	TEST_ASSERT(!r, "%s: KVM_RUN: %s", m->group, strerror(errno));
}

/*
 * Return the physical address of a byte of the operand.  The frame after FRAME is FRAME2,
 * which is not its neighbour.  After the last page before the canonical hole comes
 * EDGE_FRAME again, which code without a check would read; after TOP_FRAME comes address 0.
 */
static u64 frame_of(const struct test *test, u64 linear, int byte)
{
	u64 place = test->place ?: linear, page = place & PAGE_MASK, sum = place + byte;
	bool beyond = sum - page >= PAGE_SIZE;

	if (page == FRAME && beyond)
		return sum - PAGE_SIZE - FRAME + FRAME2;
	if (page == EDGE_FRAME && beyond)
		return sum - PAGE_SIZE;
	if (page == TOP_FRAME && beyond)
		return sum - PAGE_SIZE - TOP_FRAME;
	if (!test->place && place < 2 * ALIAS)
		return sum % ALIAS;
	return sum;
}

static bool is_memory(u64 address)
{
	return address < MEMORY || (address & PAGE_MASK) == READ_ONLY + PAGE_SIZE ||
	       (address >= TOP_FRAME && address < HIGH_MEMORY + MEMORY);
}

static void write_descriptor(struct machine *m, enum op insn, const struct test *test,
			     u64 linear)
{
	u64 low[] = { 0, 0, 1, good_eptp() }, desc[2] = { low[insn], 0 };
	int i;

	if (test->described)
		memcpy(desc, test->desc, sizeof(desc));
	for (i = 0; i < sizeof(desc); i++) {
		u64 address = frame_of(test, linear, i);

		if (is_memory(address))
			*(u8 *)at(m, address) = ((u8 *)desc)[i];
	}
}

static void prepare(struct machine *m, enum op insn, const struct test *test, struct shot *shot)
{
	static const u64 good_types[] = { 0, 2, 1, 1 };
	enum reg type_reg = test->type_reg ?: CX, reg;
	u8 *code = at(m, CODE), *end;

	memset(at(m, DATA), 0xff, DATA_END - DATA);
	shot->sregs = m->reset;
	set_mode(&shot->sregs, test);
	shot->sregs.cr2 = 0xdeadbeef;
	for (reg = AX; reg <= R15; reg++)
		*reg_of(&shot->regs, reg) = (reg - AX) * 0x0101010101010101;
	shot->regs.rsp = STACK_TOP;
	shot->start = CODE + alias_of(test);
	if (test->mode != LONG) {
		shot->regs.rsp = (u32)(STACK_TOP - shot->sregs.ss.base);
		shot->start -= shot->sregs.cs.base;
	}
	shot->regs.rip = shot->start;
	if (test->effect)
		code = before(m, code, test);
	if (test->store) {
		*(u32 *)at(m, test->store) = test->was;
		code = store(code, test, test->store, test->word);
	}
	shot->start += code - (u8 *)at(m, CODE);
	aim(shot, insn, test, code);
	end = code + shot->length;
	if (test->effect)
		end = after(end, test);
	end[0] = 0xe6;
	end[1] = DONE_PORT;
	shot->end = shot->regs.rip + (end - (u8 *)at(m, CODE));
	if (insn != INVLPG)
		*reg_of(&shot->regs, type_reg) = test->typed ? test->type : good_types[insn];
	shot->regs.rflags = X86_EFLAGS_FIXED | 3 * X86_EFLAGS_IOPL | test->rflags;
	if (test->mode == VM86)
		shot->regs.rflags |= X86_EFLAGS_VM;
}

static void run(struct machine *m, enum op insn, const struct test *test, struct shot *shot,
		struct result *result)
{
	struct kvm_run *kvm_run = m->vcpu->run;
	int port;

	if (m->unreadable)
		mprotect(m->unreadable, PAGE_SIZE, PROT_NONE);
	shoot(m, shot);
	if (m->unreadable)
		mprotect(m->unreadable, PAGE_SIZE, PROT_READ | PROT_WRITE);
	if (test->store)
		shot->regs.rax = test->word;
	port = kvm_run->exit_reason == KVM_EXIT_IO ? kvm_run->io.port : -1;
	if (port == DONE_PORT)
		passed(m, result, insn, test, shot);
	else if (port >= TRAP_PORT && port < TRAP_PORT + 32)
		trapped(m, result, insn, test, shot, port - TRAP_PORT);
	else
		stuck(m, result);
}

/* Run a case with some arithmetic flags set before the instruction. */
static bool try_flags(struct machine *m, enum op insn, const struct test *test, u64 flags)
{
	u32 want = m->c && test->gap ? test->c : test->want;
	char wanted[64], got[64], name[120];
	struct result result = { };
	struct shot shot = { };
	u64 cr2;

	if (want == REFUSED)
		want = insn == INVPCID ? GP0 : VMFAIL;
	prepare(m, insn, test, &shot);
	shot.regs.rflags |= flags;
	if (insn != INVLPG)
		write_descriptor(m, insn, test, shot.linear);
	cr2 = want & SECOND_PAGE ? (shot.linear + PAGE_SIZE) & PAGE_MASK : shot.linear;
	if (test->mode != LONG)
		cr2 = (u32)cr2;
	if (m->c && test->c_cr2)
		cr2 = test->c_cr2;
	want &= ~SECOND_PAGE;
	run(m, insn, test, &shot, &result);
	if (result.end == want && (want & 0x1ff) == EXC(PF_VECTOR, 0) && result.cr2 != cr2)
		result.end = 0;
	else if (result.end == want && (want == STUCK || !result.remark[0]))
		return true;
	name_end(wanted, sizeof(wanted), want, cr2);
	name_end(got, sizeof(got), result.end ?: want, result.cr2);
	snprintf(name, sizeof(name), "%s %s%s", insn_names[insn], test->name,
		 flags ? ", flags set" : "");
	printf("%s: %s: wanted %s, got %s%s\n", m->group, name, wanted, got, result.remark);
	return false;
}

/* Run a case with the arithmetic flags clear, and again with these flags set. */
void try(struct machine *m, enum op insn, const struct test *test)
{
	m->cases++;
	if (!try_flags(m, insn, test, 0) || !try_flags(m, insn, test, ARITHMETIC))
		m->failed++;
}

/* A table ends with a case that has no name. */
void try_all(struct machine *m, enum op insn, const struct test *tests)
{
	for (; tests->name; tests++)
		try(m, insn, tests);
}

/* Try all cases of a table in another mode. */
void in_mode(struct machine *m, enum op insn, enum cpumode mode, const struct test *tests)
{
	char name[80];

	for (; tests->name; tests++) {
		struct test test = *tests;

		snprintf(name, sizeof(name), "%s, %s", tests->name, mode_names[mode]);
		test.name = name;
		test.mode = mode;
		try(m, insn, &test);
	}
}
