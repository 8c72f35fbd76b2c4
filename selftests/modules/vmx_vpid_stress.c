// SPDX-License-Identifier: GPL-2.0
/*
 * This module starts many threads that call allocate_vpid() and free_vpid() at the same
 * time.
 *
 * The threads allocate and free VPIDs as fast as they can.  A thread claims each VPID
 * that it allocates in a table: a VPID that is claimed already has two holders.  The
 * parameters are the addresses of the two functions in /proc/kallsyms, so the same code
 * calls C, Rust, or both during a transition.
 *
 * The threads run while the module loads.  The load fails if a VPID had two holders or
 * was lost, or if an allocation failed, although the threads hold 8192 VPIDs at most.
 */
#include <linux/completion.h>
#include <linux/cpufeature.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#define VPIDS		65536
#define MAX_HELD	128
/* Livepatch can move a sleeping thread. */
#define UNTIL_SLEEP	4096

static ulong allocate;
module_param(allocate, ulong, 0);
MODULE_PARM_DESC(allocate, "address of allocate_vpid()");

static ulong release;
module_param(release, ulong, 0);
MODULE_PARM_DESC(release, "address of free_vpid()");

static uint threads = 8;
module_param(threads, uint, 0);
MODULE_PARM_DESC(threads, "callers (8)");

static uint operations = 1000000;
module_param(operations, uint, 0);
MODULE_PARM_DESC(operations, "calls of all callers together (1000000)");

static atomic_t *holders;

/* The sums of all threads. */
static atomic_t calls, allocated, freed, doubles, lost, exhausted;

struct caller {
	struct completion done;
	struct rnd_state random;
	int name;
	int count;
	int held[MAX_HELD];
};

static void allocate_one(struct caller *caller)
{
	int vpid = ((int (*)(void))allocate)();

	atomic_inc(&calls);
	if (!vpid) {
		atomic_inc(&exhausted);
		return;
	}

	if (vpid < 0 || vpid >= VPIDS || atomic_cmpxchg(&holders[vpid], 0, caller->name)) {
		/* The first holder keeps the VPID. */
		atomic_inc(&doubles);
		return;
	}

	atomic_inc(&allocated);
	caller->held[caller->count++] = vpid;
}

static void free_one(struct caller *caller, int index)
{
	int vpid = caller->held[index];

	caller->held[index] = caller->held[--caller->count];
	/* Do this before the free: the VPID may have another holder right after it. */
	if (atomic_cmpxchg(&holders[vpid], caller->name, 0) != caller->name)
		atomic_inc(&lost);
	((void (*)(int))release)(vpid);
	atomic_inc(&calls);
	atomic_inc(&freed);
}

static int call(void *data)
{
	struct caller *caller = data;
	u32 turn;

	for (turn = 1; turn <= operations / threads; turn++) {
		u32 random = prandom_u32_state(&caller->random);

		if (!caller->count || (caller->count < MAX_HELD && random & 1))
			allocate_one(caller);
		else
			free_one(caller, (random >> 8) % caller->count);

		if (turn % UNTIL_SLEEP == 0)
			schedule_timeout_uninterruptible(1);
	}

	while (caller->count)
		free_one(caller, 0);

	/* No code of this module runs after this call: the module may be unloaded. */
	kthread_complete_and_exit(&caller->done, 0);
}

static int start(struct caller *caller, int name)
{
	init_completion(&caller->done);
	caller->name = name;
	prandom_seed_state(&caller->random, name);

	return PTR_ERR_OR_ZERO(kthread_run(call, caller, "vpid_stress/%d", name));
}

static int __init stress_init(void)
{
	struct caller *callers;
	uint started, i;
	int ret = 0;

	/* The functions may have no ENDBR: the kernel does not call them by address. */
	if (cpu_feature_enabled(X86_FEATURE_IBT)) {
		pr_err("with IBT functions of KVM cannot be called by address\n");
		return -EOPNOTSUPP;
	}
	if (!allocate || !release || !threads || threads > 64 || operations < threads) {
		pr_err("give allocate=, release=, threads= from 1 to 64, operations= from threads= up\n");
		return -EINVAL;
	}

	holders = vzalloc(array_size(VPIDS, sizeof(*holders)));
	callers = vzalloc(array_size(threads, sizeof(*callers)));
	if (!holders || !callers) {
		vfree(holders);
		vfree(callers);
		return -ENOMEM;
	}

	for (started = 0; started < threads && !ret; started += !ret)
		ret = start(&callers[started], started + 1);
	for (i = 0; i < started; i++)
		wait_for_completion(&callers[i].done);
	vfree(callers);
	vfree(holders);

	pr_info("calls %u allocated %u freed %u exhausted %u doubles %u lost %u\n",
		atomic_read(&calls), atomic_read(&allocated), atomic_read(&freed),
		atomic_read(&exhausted), atomic_read(&doubles), atomic_read(&lost));
	if (atomic_read(&doubles) || atomic_read(&lost) || atomic_read(&exhausted) ||
	    !atomic_read(&allocated) || atomic_read(&allocated) != atomic_read(&freed))
		return -EIO;

	return ret;
}

static void __exit stress_exit(void)
{
}

module_init(stress_init);
module_exit(stress_exit);
MODULE_DESCRIPTION("Many threads that call KVM's functions for VPIDs");
MODULE_LICENSE("GPL");
MODULE_INFO(test, "Y");
