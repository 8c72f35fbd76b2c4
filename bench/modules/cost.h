/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the modules that measure share: the TSC's ticks that a piece of code takes,
 * read with interrupts off.
 *
 * In an emulator in which an instruction is a tick, these are the instructions of a
 * function, from its first one to its return.  On hardware they are cycles of the TSC;
 * the fences keep the code between the two readings.
 */
#ifndef VMX_VPID_COST_H
#define VMX_VPID_COST_H

#include <linux/cpufeature.h>
#include <linux/irqflags.h>
#include <linux/printk.h>
#include <linux/sort.h>
#include <asm/nospec-branch.h>

/* What a function is called with, and what it returned. */
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
 * Two readings of the TSC with some code in between, the same but for that.  The code
 * has three arguments where a function expects them; what has to outlast it is in
 * registers that a function leaves alone.
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

/* What two readings take by themselves. */
static inline u64 nothing(void)
{
	struct call call = { };

	return ticks_of("", &call);
}

/* What a function takes.  The call itself, one instruction, is the caller's. */
static inline u64 cost(struct call *call, u64 overhead)
{
	return ticks_of(ANNOTATE_RETPOLINE_SAFE "\ncall *%[fn]\n", call) - overhead - 1;
}

static inline int by_value(const void *one, const void *other)
{
	u64 a = *(const u64 *)one, b = *(const u64 *)other;

	return a < b ? -1 : a > b;
}

/* A line of the log for bench/measure.sh. */
static inline void report(const char *kind, const char *name, u64 *samples, int count)
{
	sort(samples, count, sizeof(samples[0]), by_value, NULL);
	pr_info("%s %s %llu %llu\n", kind, name, samples[0], samples[count / 2]);
}

/* KVM's functions may have lost their ENDBR: nobody else calls them by address. */
static inline bool callable(void)
{
	if (!cpu_feature_enabled(X86_FEATURE_IBT))
		return true;
	pr_err("with IBT functions of KVM cannot be called by address\n");
	return false;
}

#endif
