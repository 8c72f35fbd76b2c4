// SPDX-License-Identifier: GPL-2.0
/*
 * This module measures the cost of allocate_vpid() and free_vpid(), by the number of
 * VPIDs in use.
 *
 * The parameters are the addresses of the functions in /proc/kallsyms: C's functions,
 * with or without the livepatch, or the Rust functions that livepatch leads to.
 *
 * The module prints "cost NAME LEAST MEDIAN" for each number while it loads, and does
 * nothing afterwards.
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
static u64 most;

static u64 cost_of_allocate(int *vpid)
{
	struct call call = { allocate };
	u64 ticks = cost(&call, overhead);

	*vpid = call.result;
	return ticks;
}

static u64 cost_of_free(int vpid)
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

/* Allocate VPIDs until `to` VPIDs are in use. */
static int fill(int to)
{
	while (count < to) {
		int vpid;

		most = max(most, cost_of_allocate(&vpid));
		if (!vpid) {
			pr_err("only %d VPIDs are free, not %d: stop all VMs\n", count, to);
			return -EBUSY;
		}
		held[count++] = vpid;
	}

	return 0;
}

/* Free all VPIDs; return the cost of the most expensive call. */
static u64 empty(void)
{
	u64 worst = 0;

	while (count)
		worst = max(worst, cost_of_free(held[--count]));

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
		samples[turn] = cost_of_allocate(&vpid);
		releases[turn] = cost_of_free(vpid);
	}
	tell("allocate", in_use);
	memcpy(samples, releases, sizeof(samples));
	tell("free", in_use);

	return 0;
}

/* The cost of an allocation that fails, since no VPID is left. */
static int measure_exhausted(void)
{
	int turn, vpid;
	int ret;

	ret = fill(VPIDS - 1);
	if (ret)
		return ret;

	for (turn = 0; turn < TURNS; turn++)
		samples[turn] = cost_of_allocate(&vpid);
	tell("allocate", VPIDS - 1);

	return 0;
}

/* Print the most expensive call of each function. */
static void tell_most(void)
{
	u64 worst = empty();

	pr_info("cost allocate_worst %llu %llu\n", most, most);
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
		tell_most();
	empty();

	vfree(held);
	return ret;
}

static void __exit cost_exit(void)
{
}

module_init(cost_init);
module_exit(cost_exit);
MODULE_DESCRIPTION("Measures the cost of KVM's functions for VPIDs");
MODULE_LICENSE("GPL");
MODULE_INFO(test, "Y");
