// SPDX-License-Identifier: GPL-2.0
/*
 * This module measures the cost of a flush function, and of the bare instruction with
 * the same effect.
 *
 * KVM's functions need a loaded vCPU whose VMCS is current.  So this module calls the
 * functions from KVM's trace event kvm_entry, before a VM entry: interrupts are off, and
 * the vCPU has its root.  An additional flush does no harm.  The parameters are the
 * addresses of the functions in /proc/kallsyms: C's functions, with or without the
 * livepatch, or the Rust functions that KVM's static calls lead to.
 *
 * The module measures at the first VM entry, and prints "cost NAME LEAST MEDIAN" and
 * "bare NAME LEAST MEDIAN" for each function when it unloads.
 */
#include <linux/module.h>
#include <linux/tracepoint.h>
#include <asm/vmx.h>
#include "cost.h"

#define TURNS	64
/* Any canonical address will do. */
#define ADDRESS	0x400000

enum { ALL, CURRENT, GVA, GUEST, FLUSHES };

static const char * const names[FLUSHES] = { "all", "current", "gva", "guest" };

static ulong functions[FLUSHES];
static int given;
module_param_array(functions, ulong, &given, 0);
MODULE_PARM_DESC(functions, "addresses of vmx_flush_tlb_all(), _current(), _gva(), _guest()");

/* KVM's own trace event; other code cannot include KVM's trace.h. */
DECLARE_TRACEPOINT(kvm_entry);
struct kvm_vcpu;

static u64 costs[FLUSHES][TURNS];
static u64 bare[FLUSHES][TURNS];
static bool ept, done, failed;

static unsigned long vmcs_field(unsigned long field)
{
	unsigned long value;

	asm volatile("vmread %[field], %[value]"
		     : [value] "=r" (value) : [field] "r" (field) : "cc");
	return value;
}

/* The operand of an instruction, and its type as the first argument. */
struct operand {
	u64 low;
	u64 high;
} __aligned(16);

static void measure_invvpid(u64 type, struct operand operand, u64 overhead, u64 *samples)
{
	struct call call = { 0, { type, 0, (unsigned long)&operand } };
	bool refused;
	int turn;

	asm volatile("invvpid %[operand], %[type]"
		     : "=@ccbe" (refused) : [operand] "m" (operand), [type] "r" (type) : "memory");
	failed |= refused;
	for (turn = 0; turn < TURNS; turn++)
		samples[turn] = ticks_of("invvpid (%%rdx), %%rdi\n", &call) - overhead;
}

static void measure_invept(u64 type, struct operand operand, u64 overhead, u64 *samples)
{
	struct call call = { 0, { type, 0, (unsigned long)&operand } };
	bool refused;
	int turn;

	asm volatile("invept %[operand], %[type]"
		     : "=@ccbe" (refused) : [operand] "m" (operand), [type] "r" (type) : "memory");
	failed |= refused;
	for (turn = 0; turn < TURNS; turn++)
		samples[turn] = ticks_of("invept (%%rdx), %%rdi\n", &call) - overhead;
}

/* Measure the instructions that C issues on a CPU with every extent. */
static void measure_bare(u64 overhead)
{
	struct operand context = { vmcs_field(VIRTUAL_PROCESSOR_ID), 0 };
	struct operand address = { context.low, ADDRESS };
	struct operand none = { };

	if (ept) {
		struct operand root = { vmcs_field(EPT_POINTER), 0 };

		measure_invept(VMX_EPT_EXTENT_GLOBAL, none, overhead, bare[ALL]);
		measure_invept(VMX_EPT_EXTENT_CONTEXT, root, overhead, bare[CURRENT]);
	} else {
		measure_invvpid(VMX_VPID_EXTENT_ALL_CONTEXT, none, overhead, bare[ALL]);
		measure_invvpid(VMX_VPID_EXTENT_SINGLE_CONTEXT, context, overhead, bare[CURRENT]);
	}
	measure_invvpid(VMX_VPID_EXTENT_INDIVIDUAL_ADDR, address, overhead, bare[GVA]);
	measure_invvpid(VMX_VPID_EXTENT_SINGLE_CONTEXT, context, overhead, bare[GUEST]);
}

static void entering(void *data, struct kvm_vcpu *vcpu, bool force_immediate_exit)
{
	u64 overhead = nothing();
	bool full = false;
	int i, turn;

	if (done)
		return;
	done = true;
	ept = vmcs_field(SECONDARY_VM_EXEC_CONTROL) & SECONDARY_EXEC_ENABLE_EPT;

	for (i = 0; i < FLUSHES; i++) {
		struct call call = {
			functions[i], { (unsigned long)vcpu, ADDRESS, (unsigned long)&full }
		};

		for (turn = 0; turn < TURNS; turn++)
			costs[i][turn] = cost(&call, overhead);
	}
	measure_bare(overhead);
}

static int __init flush_cost_init(void)
{
	if (!callable())
		return -EOPNOTSUPP;
	if (given != FLUSHES)
		return -EINVAL;

	return tracepoint_probe_register(&__tracepoint_kvm_entry, entering, NULL);
}

static void __exit flush_cost_exit(void)
{
	char name[24];
	int i;

	tracepoint_probe_unregister(&__tracepoint_kvm_entry, entering, NULL);
	tracepoint_synchronize_unregister();

	if (!done || failed) {
		pr_err("%s\n", done ? "an instruction failed" : "there was no VM entry");
		return;
	}
	for (i = 0; i < FLUSHES; i++) {
		snprintf(name, sizeof(name), "flush_%s_ept%d", names[i], ept);
		report("cost", name, costs[i], TURNS);
		report("bare", name, bare[i], TURNS);
	}
}

module_init(flush_cost_init);
module_exit(flush_cost_exit);
MODULE_DESCRIPTION("Measures the cost of KVM's flushes");
MODULE_LICENSE("GPL");
MODULE_INFO(test, "Y");
