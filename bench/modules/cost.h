/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header has functions for the modules that measure: ticks of the TSC for a piece
 * of code, with interrupts off.
 *
 * In an emulator in which an instruction is a tick, the ticks are the instructions of a
 * function, from the first one to the return.  On hardware the ticks are cycles of the
 * TSC; the fences keep the code between the two readings.
 */
#ifndef VMX_VPID_COST_H
#define VMX_VPID_COST_H

#include <linux/cpufeature.h>
#include <linux/irqflags.h>
#include <linux/printk.h>
#include <linux/sort.h>
#include <asm/nospec-branch.h>

/* A call of a function: its address, arguments and result. */
struct call {
	unsigned long function;
	unsigned long arguments[3];
	int result;
};

/* A reading of the TSC in RAX. */
#define READ_TSC							\
	"lfence\n"							\
	"rdtsc\n"							\
	"lfence\n"							\
	"shl $32, %%rdx\n"						\
	"or %%rdx, %%rax\n"

/*
 * Two readings of the TSC with some code in between.  The code gets three arguments in the
 * registers of a function call; values that are needed after the code are in registers
 * that a function preserves.
 */
#define ticks_of(code, with)						\
({									\
	struct call *made = (with);					\
	register unsigned long target asm("r12") = made->function;	\
	register int value asm("r13");					\
	register unsigned long third asm("r14") = made->arguments[2];	\
	unsigned long first = made->arguments[0];			\
	unsigned long second = made->arguments[1];			\
	unsigned long flags;						\
	u64 start;							\
	u64 end;							\
									\
	local_irq_save(flags);						\
	asm volatile(READ_TSC						\
		     "mov %%rax, %[start]\n"				\
		     "mov %[third], %%rdx\n"				\
		     code						\
		     "mov %%eax, %[value]\n"				\
		     READ_TSC						\
		     : [start] "=&b" (start), "=&a" (end),		\
		       [value] "=&r" (value), "+D" (first),		\
		       "+S" (second), ASM_CALL_CONSTRAINT		\
		     : [fn] "r" (target), [third] "r" (third)		\
		     : "rcx", "rdx", "r8", "r9", "r10", "r11",		\
		       "memory", "cc");					\
	local_irq_restore(flags);					\
	made->result = value;						\
	end - start;							\
})

/* The ticks of two readings alone. */
static inline u64 nothing(void)
{
	struct call call = { };

	return ticks_of("", &call);
}

/* The ticks of a function, without those of the CALL, which is one instruction. */
static inline u64 cost(struct call *call, u64 overhead)
{
	return ticks_of(ANNOTATE_RETPOLINE_SAFE "\ncall *%[fn]\n", call) - overhead - 1;
}

static inline int by_value(const void *one, const void *other)
{
	u64 a = *(const u64 *)one, b = *(const u64 *)other;

	return a < b ? -1 : a > b;
}

/* Print a line for bench/measure.sh to the log. */
static inline void report(const char *kind, const char *name, u64 *samples, int count)
{
	sort(samples, count, sizeof(samples[0]), by_value, NULL);
	pr_info("%s %s %llu %llu\n", kind, name, samples[0], samples[count / 2]);
}

/* KVM's functions may have no ENDBR: the kernel does not call them by address. */
static inline bool callable(void)
{
	if (!cpu_feature_enabled(X86_FEATURE_IBT))
		return true;
	pr_err("with IBT functions of KVM cannot be called by address\n");
	return false;
}

#endif
