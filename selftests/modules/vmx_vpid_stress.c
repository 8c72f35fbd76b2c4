// SPDX-License-Identifier: GPL-2.0
/*
 * Many callers of allocate_vpid() and free_vpid() at once.
 *
 * Threads take VPIDs and give them back as fast as they can, and each VPID that is
 * given out is claimed in a table: one that was claimed already has two owners.
 * The functions are named by their addresses, as /proc/kallsyms has them, so that it
 * is the same caller whether C serves, Rust serves, or both do in a transition.
 *
 * Runs while it is being loaded, and fails to load if a VPID had two owners or was
 * lost, or if there was none although these callers hold 8192 at most.
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
/* A thread that sleeps can be moved by livepatch. */
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

static atomic_t *owners;

/* Over all callers. */
static atomic_t calls, given, taken, doubles, lost, exhausted;

struct caller {
	struct completion done;
	struct rnd_state random;
	int name;
	int count;
	int held[MAX_HELD];
};

static void take(struct caller *caller)
{
	int vpid = ((int (*)(void))allocate)();

	atomic_inc(&calls);
	if (!vpid) {
		atomic_inc(&exhausted);
		return;
	}

	if (vpid < 0 || vpid >= VPIDS || atomic_cmpxchg(&owners[vpid], 0, caller->name)) {
		/* It is left to its first owner. */
		atomic_inc(&doubles);
		return;
	}

	atomic_inc(&given);
	caller->held[caller->count++] = vpid;
}

static void give_back(struct caller *caller, int index)
{
	int vpid = caller->held[index];

	caller->held[index] = caller->held[--caller->count];
	/* Before it is free: it may have another owner right after. */
	if (atomic_cmpxchg(&owners[vpid], caller->name, 0) != caller->name)
		atomic_inc(&lost);
	((void (*)(int))release)(vpid);
	atomic_inc(&calls);
	atomic_inc(&taken);
}

static int call(void *data)
{
	struct caller *caller = data;
	u32 turn;

	for (turn = 1; turn <= operations / threads; turn++) {
		u32 random = prandom_u32_state(&caller->random);

		if (!caller->count || (caller->count < MAX_HELD && random & 1))
			take(caller);
		else
			give_back(caller, (random >> 8) % caller->count);

		if (turn % UNTIL_SLEEP == 0)
			schedule_timeout_uninterruptible(1);
	}

	while (caller->count)
		give_back(caller, 0);

	/* Nothing of this module is executed after that: it may be gone. */
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

	/* The functions may have lost their ENDBR: nobody else calls them by address. */
	if (cpu_feature_enabled(X86_FEATURE_IBT)) {
		pr_err("with IBT functions of KVM cannot be called by address\n");
		return -EOPNOTSUPP;
	}
	if (!allocate || !release || !threads || threads > 64 || operations < threads) {
		pr_err("give allocate=, release=, threads= from 1 to 64, operations= from threads= up\n");
		return -EINVAL;
	}

	owners = vzalloc(array_size(VPIDS, sizeof(*owners)));
	callers = vzalloc(array_size(threads, sizeof(*callers)));
	if (!owners || !callers) {
		vfree(owners);
		vfree(callers);
		return -ENOMEM;
	}

	for (started = 0; started < threads && !ret; started += !ret)
		ret = start(&callers[started], started + 1);
	for (i = 0; i < started; i++)
		wait_for_completion(&callers[i].done);
	vfree(callers);
	vfree(owners);

	pr_info("calls %u given %u taken %u exhausted %u doubles %u lost %u\n",
		atomic_read(&calls), atomic_read(&given), atomic_read(&taken),
		atomic_read(&exhausted), atomic_read(&doubles), atomic_read(&lost));
	if (atomic_read(&doubles) || atomic_read(&lost) || atomic_read(&exhausted) ||
	    !atomic_read(&given) || atomic_read(&given) != atomic_read(&taken))
		return -EIO;

	return ret;
}

static void __exit stress_exit(void)
{
}

module_init(stress_init);
module_exit(stress_exit);
MODULE_DESCRIPTION("Many callers of KVM's functions for VPIDs at once");
MODULE_LICENSE("GPL");
MODULE_INFO(test, "Y");
