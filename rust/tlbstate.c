// SPDX-License-Identifier: GPL-2.0
/*
 * This file follows the host's ASIDs: ftrace reports what a CPU is about to do, and the
 * kernel's tracepoint reports what the CPU did.
 *
 * This file decides nothing; each event leads to kvm/tlbstate.rs.  An event comes with
 * interrupts off, so that the state of this CPU does not change.
 */
#include <linux/ftrace.h>
#include <linux/mmu_context.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include "vmx_vpid.h"

/* The receiver of events, set before the first event and kept until after the last. */
static void *follower;

/**
 * vmx_vpid_asid_features - read how the kernel uses PCIDs
 * @features: the structure to fill
 */
void vmx_vpid_asid_features(struct vmx_vpid_asid_features *features)
{
	features->pcid = cpu_feature_enabled(X86_FEATURE_PCID);
	features->pti = cpu_feature_enabled(X86_FEATURE_PTI);
	features->invpcid = cpu_feature_enabled(X86_FEATURE_INVPCID);
	features->invlpgb = cpu_feature_enabled(X86_FEATURE_INVLPGB);
}

/**
 * vmx_vpid_tlb_state - return the kernel's slots of this CPU
 *
 * Call this with interrupts off.
 */
const struct tlb_state *vmx_vpid_tlb_state(void)
{
	return this_cpu_ptr((void __percpu *)(unsigned long)vmx_vpid_import_cpu_tlbstate);
}

/**
 * vmx_vpid_tlb_state_shared - return the state of this CPU that other CPUs read
 *
 * Call this with interrupts off.
 */
const struct tlb_state_shared *vmx_vpid_tlb_state_shared(void)
{
	return this_cpu_ptr((void __percpu *)(unsigned long)vmx_vpid_import_cpu_tlbstate_shared);
}

/**
 * vmx_vpid_read_mm - read the context id, the tlb_gen and the root of an address space
 * @from: the address space, which is loaded or about to be loaded, or is to be flushed
 * @to: the structure to fill
 */
void vmx_vpid_read_mm(struct mm_struct *from, struct vmx_vpid_mm *to)
{
	to->ctx_id = from->context.ctx_id;
	to->tlb_gen = atomic64_read(&from->context.tlb_gen);
	to->root = __sme_pa(from->pgd) | mm_lam_cr3_mask(from);
}

static void on_switch(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
		      struct ftrace_regs *regs)
{
	/* switch_mm_irqs_off(unused, next, task) */
	vmx_vpid_asid_switching(follower, (void *)ftrace_regs_get_argument(regs, 1));
}

static void on_flush(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
		     struct ftrace_regs *regs)
{
	/* flush_tlb_func(info) */
	vmx_vpid_asid_flushing(follower, (void *)ftrace_regs_get_argument(regs, 0));
}

static void on_tlb_flush(void *data, int reason, unsigned long pages)
{
	switch (reason) {
	case TLB_FLUSH_ON_TASK_SWITCH:
		vmx_vpid_asid_switched(follower, __read_cr3(), pages);
		break;
	case TLB_REMOTE_SHOOTDOWN:
	case TLB_LOCAL_SHOOTDOWN:
	case TLB_LOCAL_MM_SHOOTDOWN:
	case TLB_REMOTE_WRONG_CPU:
		vmx_vpid_asid_flushed(follower, __read_cr3(), pages);
		break;
	}
}

static struct ftrace_ops switch_ops = { .func = on_switch };
static struct ftrace_ops flush_ops = { .func = on_flush };

static int hook(struct ftrace_ops *ops, const char *function)
{
	int ret;

	ret = ftrace_set_filter(ops, (unsigned char *)function, strlen(function), 1);
	if (!ret)
		ret = register_ftrace_function(ops);
	if (ret)
		ftrace_free_filter(ops);

	return ret;
}

/* When this function returns, no CPU is in the function that ftrace called. */
static void unhook(struct ftrace_ops *ops)
{
	unregister_ftrace_function(ops);
	ftrace_free_filter(ops);
}

static void match(struct tracepoint *tp, void *found)
{
	if (!strcmp(tp->name, "tlb_flush"))
		*(struct tracepoint **)found = tp;
}

static struct tracepoint *tlb_flush;

static void stop_listening(void)
{
	tracepoint_probe_unregister(tlb_flush, on_tlb_flush, NULL);
	tracepoint_synchronize_unregister();
}

/**
 * vmx_vpid_asid_follow - report what the CPUs do, until vmx_vpid_asid_unfollow()
 * @to: the receiver of each event
 *
 * Return: 0, or an errno; then no event is reported.
 */
int vmx_vpid_asid_follow(void *to)
{
	int ret;

	for_each_kernel_tracepoint(match, &tlb_flush);
	if (!tlb_flush)
		return -ENOENT;

	/* The tracepoint comes first: the receiver recognises an end without a begin. */
	follower = to;
	ret = tracepoint_probe_register(tlb_flush, on_tlb_flush, NULL);
	if (ret)
		return ret;

	ret = hook(&flush_ops, "flush_tlb_func");
	if (ret)
		goto err_listening;

	ret = hook(&switch_ops, "switch_mm_irqs_off");
	if (ret)
		goto err_flush;

	return 0;

err_flush:
	unhook(&flush_ops);
err_listening:
	stop_listening();
	return ret;
}

/**
 * vmx_vpid_asid_unfollow - report no more events
 *
 * When this function returns, no CPU uses the receiver of events.
 */
void vmx_vpid_asid_unfollow(void)
{
	unhook(&switch_ops);
	unhook(&flush_ops);
	stop_listening();
}
