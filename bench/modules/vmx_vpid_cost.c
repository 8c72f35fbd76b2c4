// SPDX-License-Identifier: GPL-2.0
/*
 * What a call of allocate_vpid() or free_vpid() costs by itself, by the number of
 * VPIDs in use.
 *
 * The functions are named by their addresses, as /proc/kallsyms has them: C's own,
 * C's with a livepatch on it, or the Rust function that livepatch leads to.  They are
 * called with interrupts off, between two readings of the TSC; in an emulator in
 * which an instruction is a tick, the difference is the instructions of the function,
 * from its first one to its return.
 *
 * Prints "NAME LEAST MEDIAN" for each while it is loaded, and does nothing after.
 */
#include <linux/cpufeature.h>
#include <linux/module.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>
#include <asm/nospec-branch.h>

#define VPIDS	65536
#define TURNS	32

static ulong allocate;
module_param(allocate, ulong, 0);
MODULE_PARM_DESC(allocate, "address of allocate_vpid()");

static ulong release;
module_param(release, ulong, 0);
MODULE_PARM_DESC(release, "address of free_vpid()");

static const int occupancies[] = { 0, 1, 1024, 16384, 32768, 65000, 65534 };

static int *held;
static int count;
static u64 samples[TURNS];
static u64 overhead;

/* Two readings of the TSC with some code in between, the same but for that. */
#define between(code, function, argument, result)			\
({									\
	u64 start;							\
	u64 end;							\
									\
	asm volatile("rdtsc\n"						\
		     "shl $32, %%rdx\n"					\
		     "or %%rdx, %%rax\n"				\
		     "mov %%rax, %[start]\n"				\
		     code						\
		     "mov %%eax, %[res]\n"				\
		     "rdtsc\n"						\
		     "shl $32, %%rdx\n"					\
		     "or %%rdx, %%rax\n"				\
		     : [start] "=&b" (start), "=&a" (end),		\
		       [res] "=&r" (result), "+D" (argument),		\
		       ASM_CALL_CONSTRAINT				\
		     : [fn] "r" (function)				\
		     : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11",	\
		       "memory", "cc");					\
	end - start;							\
})

#define CALL	ANNOTATE_RETPOLINE_SAFE "\ncall *%[fn]\n"

static u64 cost(unsigned long function, unsigned long argument, int *result)
{
	/* Where a call does not touch it. */
	register unsigned long target asm("r12") = function;
	register int value asm("r13");
	unsigned long flags;
	u64 ticks;

	local_irq_save(flags);
	ticks = between(CALL, target, argument, value);
	local_irq_restore(flags);
	*result = value;

	/* The call itself is the caller's. */
	return ticks - overhead - 1;
}

static void calibrate(void)
{
	register unsigned long target asm("r12") = 0;
	register int value asm("r13");
	unsigned long argument = 0;
	unsigned long flags;

	local_irq_save(flags);
	overhead = between("", target, argument, value);
	local_irq_restore(flags);
}

static int by_value(const void *one, const void *other)
{
	u64 a = *(const u64 *)one, b = *(const u64 *)other;

	return a < b ? -1 : a > b;
}

static void report(const char *what, int in_use)
{
	sort(samples, TURNS, sizeof(samples[0]), by_value, NULL);
	pr_info("cost %s_%d %llu %llu\n", what, in_use, samples[0], samples[TURNS / 2]);
}

/* Takes VPIDs until so many are in use; tells what the dearest call took. */
static int fill(int to, u64 *worst)
{
	*worst = 0;

	while (count < to) {
		int vpid;

		*worst = max(*worst, cost(allocate, 0, &vpid));
		if (!vpid) {
			pr_err("%d VPIDs could be taken, not %d: stop all VMs\n", count, to);
			return -EBUSY;
		}
		held[count++] = vpid;
	}

	return 0;
}

static u64 empty(void)
{
	u64 worst = 0;

	while (count) {
		int ignored;

		worst = max(worst, cost(release, held[--count], &ignored));
	}

	return worst;
}

static int measure(int in_use)
{
	u64 releases[TURNS];
	int turn, vpid, ignored;
	u64 worst;
	int ret;

	ret = fill(in_use, &worst);
	if (ret)
		return ret;

	for (turn = 0; turn < TURNS; turn++) {
		samples[turn] = cost(allocate, 0, &vpid);
		releases[turn] = cost(release, vpid, &ignored);
	}
	report("allocate", in_use);
	memcpy(samples, releases, sizeof(samples));
	report("free", in_use);

	return 0;
}

/* With none left: what a vCPU without a VPID costs. */
static int measure_exhausted(void)
{
	u64 worst;
	int i, ret;

	ret = fill(VPIDS - 1, &worst);
	if (ret)
		return ret;

	for (i = 0; i < TURNS; i++) {
		int vpid;

		samples[i] = cost(allocate, 0, &vpid);
	}
	report("allocate", VPIDS - 1);

	return 0;
}

/* The dearest call of all from none to all and back. */
static int measure_worst(void)
{
	u64 worst;
	int ret;

	empty();
	ret = fill(VPIDS - 1, &worst);
	if (ret)
		return ret;

	pr_info("cost allocate_worst %llu %llu\n", worst, worst);
	worst = empty();
	pr_info("cost free_worst %llu %llu\n", worst, worst);

	return 0;
}

static int __init cost_init(void)
{
	int i, ret = 0;

	/* The functions may have lost their ENDBR: nobody else calls them by address. */
	if (cpu_feature_enabled(X86_FEATURE_IBT)) {
		pr_err("with IBT functions of KVM cannot be called by address\n");
		return -EOPNOTSUPP;
	}
	if (!allocate || !release)
		return -EINVAL;

	held = vmalloc(array_size(VPIDS, sizeof(*held)));
	if (!held)
		return -ENOMEM;

	calibrate();
	for (i = 0; i < ARRAY_SIZE(occupancies) && !ret; i++)
		ret = measure(occupancies[i]);
	if (!ret)
		ret = measure_exhausted();
	if (!ret)
		ret = measure_worst();
	empty();

	vfree(held);
	return ret;
}

static void __exit cost_exit(void)
{
}

module_init(cost_init);
module_exit(cost_exit);
MODULE_DESCRIPTION("What KVM's functions for VPIDs cost");
MODULE_LICENSE("GPL");
MODULE_INFO(test, "Y");
