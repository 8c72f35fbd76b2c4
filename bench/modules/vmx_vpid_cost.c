// SPDX-License-Identifier: GPL-2.0
/*
 * What a call of allocate_vpid() or free_vpid() costs by itself, by the number of
 * VPIDs in use.
 *
 * The functions are named by their addresses, as /proc/kallsyms has them: C's own,
 * C's with a livepatch on it, or the Rust function that livepatch leads to.
 *
 * Prints "NAME LEAST MEDIAN" for each while it is loaded, and does nothing after.
 */
#include <linux/module.h>
#include <linux/vmalloc.h>
#include "cost.h"

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
static u64 dearest;

static u64 taking(int *vpid)
{
	struct call call = { allocate };
	u64 ticks = cost(&call, overhead);

	*vpid = call.result;
	return ticks;
}

static u64 giving_back(int vpid)
{
	struct call call = { release, { vpid } };

	return cost(&call, overhead);
}

static void tell(const char *what, int in_use)
{
	char name[24];

	snprintf(name, sizeof(name), "%s_%d", what, in_use);
	report("cost", name, samples, TURNS);
}

/* Takes VPIDs until so many are in use. */
static int fill(int to)
{
	while (count < to) {
		int vpid;

		dearest = max(dearest, taking(&vpid));
		if (!vpid) {
			pr_err("%d VPIDs could be taken, not %d: stop all VMs\n", count, to);
			return -EBUSY;
		}
		held[count++] = vpid;
	}

	return 0;
}

/* Returns what the dearest call took. */
static u64 empty(void)
{
	u64 worst = 0;

	while (count)
		worst = max(worst, giving_back(held[--count]));

	return worst;
}

static int measure(int in_use)
{
	u64 releases[TURNS];
	int turn, vpid;
	int ret;

	ret = fill(in_use);
	if (ret)
		return ret;

	for (turn = 0; turn < TURNS; turn++) {
		samples[turn] = taking(&vpid);
		releases[turn] = giving_back(vpid);
	}
	tell("allocate", in_use);
	memcpy(samples, releases, sizeof(samples));
	tell("free", in_use);

	return 0;
}

/* With none left: what a vCPU without a VPID costs. */
static int measure_exhausted(void)
{
	int turn, vpid;
	int ret;

	ret = fill(VPIDS - 1);
	if (ret)
		return ret;

	for (turn = 0; turn < TURNS; turn++)
		samples[turn] = taking(&vpid);
	tell("allocate", VPIDS - 1);

	return 0;
}

/* The dearest call of all from none in use to all and back. */
static void tell_dearest(void)
{
	u64 worst = empty();

	pr_info("cost allocate_worst %llu %llu\n", dearest, dearest);
	pr_info("cost free_worst %llu %llu\n", worst, worst);
}

static int __init cost_init(void)
{
	int i, ret = 0;

	if (!callable())
		return -EOPNOTSUPP;
	if (!allocate || !release)
		return -EINVAL;

	held = vmalloc(array_size(VPIDS, sizeof(*held)));
	if (!held)
		return -ENOMEM;

	overhead = nothing();
	for (i = 0; i < ARRAY_SIZE(occupancies) && !ret; i++)
		ret = measure(occupancies[i]);
	if (!ret)
		ret = measure_exhausted();
	if (!ret)
		tell_dearest();
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
