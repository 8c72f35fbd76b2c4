// SPDX-License-Identifier: GPL-2.0
/*
 * This file wraps macros and inline functions that Rust cannot call, and defines the
 * variables that flushes read.
 */
#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/smp.h>
#include <linux/static_key.h>
#include <asm/cpufeature.h>
#include <asm/cpuid/api.h>
#include <asm/msr.h>
#include <asm/vmx.h>
#include "mmu/spte.h"
#include "vmx/vmx_onhyperv.h"
#include "vmx_vpid.h"

DEFINE_PER_CPU(u64 [VMX_VPID_NR_COUNTERS], vmx_vpid_counters);

/**
 * vmx_vpid_counter_sum - add up one counter over all CPUs
 * @counter: index in the per-CPU array
 *
 * Return: the sum; increments at the same time may or may not be included.
 */
u64 vmx_vpid_counter_sum(unsigned int counter)
{
	u64 sum = 0;
	int cpu;

	if (counter >= VMX_VPID_NR_COUNTERS)
		return 0;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(vmx_vpid_counters, cpu)[counter]);

	return sum;
}

DEFINE_PER_CPU(struct vmx_vpid_flushed_on_cpu, vmx_vpid_flushed_on_cpu);

/**
 * vmx_vpid_set_flushed_on_cpu - set a CPU's part of FlushedCpus
 * @cpu: number of a CPU; nothing is done for a CPU that the machine cannot have
 * @words: a word for each VPID
 * @bit: the CPU's bit in these words
 */
void vmx_vpid_set_flushed_on_cpu(unsigned int cpu, u64 *words, u64 bit)
{
	if (cpu < nr_cpu_ids && cpu_possible(cpu))
		per_cpu(vmx_vpid_flushed_on_cpu, cpu) =
			(struct vmx_vpid_flushed_on_cpu){ .words = words, .bit = bit };
}

struct vmx_vpid_cpu vmx_vpid_cpu __ro_after_init;

struct vmx_vpid_state vmx_vpid_state __read_mostly;

struct vmx_vpid_keys vmx_vpid_keys = {
	.all_need_slow_path = STATIC_KEY_FALSE_INIT,
	.others_need_slow_path = STATIC_KEY_FALSE_INIT,
};

static void set_key(struct static_key_false *key, bool on)
{
	if (on)
		static_branch_enable(key);
	else
		static_branch_disable(key);
}

/**
 * vmx_vpid_set_slow_path - set the static branches that send flushes to the slow path
 * @all: a flush of all needs the slow path
 * @others: the other kinds need the slow path
 */
void vmx_vpid_set_slow_path(bool all, bool others)
{
	set_key(&vmx_vpid_keys.all_need_slow_path, all);
	set_key(&vmx_vpid_keys.others_need_slow_path, others);
}

/**
 * vmx_vpid_read_cpu - read the invalidations and address widths that the CPU supports
 *
 * IA32_VMX_EPT_VPID_CAP exists only if the secondary controls allow EPT or VPID;
 * otherwise it counts as 0.
 *
 * Return: 0, or -ENODEV if there is no VMX (or the firmware has turned it off).
 */
int vmx_vpid_read_cpu(void)
{
	u64 primary, secondary;

	if (!boot_cpu_has(X86_FEATURE_VMX) ||
	    rdmsrq_safe(MSR_IA32_VMX_PROCBASED_CTLS, &primary))
		return -ENODEV;

	/*
	 * boot_cpu_data leaves out the bits that MKTME uses for a key; EPT has these
	 * bits too.
	 */
	vmx_vpid_cpu.maxphyaddr = boot_cpu_data.extended_cpuid_level >= 0x80000008 ?
				  cpuid_eax(0x80000008) & 0xff : boot_cpu_data.x86_phys_bits;
	vmx_vpid_cpu.la57 = boot_cpu_data.cpuid_level >= 7 &&
			    (cpuid_ecx(7) & BIT(X86_FEATURE_LA57 & 31));

	if (!((primary >> 32) & CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) ||
	    rdmsrq_safe(MSR_IA32_VMX_PROCBASED_CTLS2, &secondary))
		return 0;

	if (!((secondary >> 32) & (SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_ENABLE_VPID)))
		return 0;

	if (rdmsrq_safe(MSR_IA32_VMX_EPT_VPID_CAP, &vmx_vpid_cpu.ept_vpid_cap))
		vmx_vpid_cpu.ept_vpid_cap = 0;

	return 0;
}

/**
 * vmx_vpid_root_role - return the role of the shadow page of a root
 * @root: host-physical address of the root
 *
 * The dummy root has no shadow page; KVM uses it with four levels and without accessed
 * and dirty flags.
 *
 * Return: the role; a role with level 0 if KVM keeps no shadow page for the root.
 */
union kvm_mmu_page_role vmx_vpid_root_role(hpa_t root)
{
	struct kvm_mmu_page *sp;

	if (kvm_mmu_is_dummy_root(root))
		return (union kvm_mmu_page_role){ .level = 4, .ad_disabled = 1 };

	sp = root_to_sp(root);
	if (unlikely(!sp)) {
		/* KVM warns too: each root that KVM loads has a page. */
		pr_warn_once("vmx_vpid: KVM keeps no page for root %#llx: all contexts are flushed\n",
			     root);
		return (union kvm_mmu_page_role){ };
	}

	return sp->role;
}

/*
 * The task whose latest call of allocate_vpid() got no VPID.  If two tasks get none at
 * the same time, one of them may call allocate_vpid() twice, and be counted twice.
 */
static struct task_struct *refused;

/**
 * vmx_vpid_remember_refusal - remember that this task got no VPID
 */
void vmx_vpid_remember_refusal(void)
{
	WRITE_ONCE(refused, current);
}

/**
 * vmx_vpid_forget_refusal - forget which task got no VPID
 */
void vmx_vpid_forget_refusal(void)
{
	WRITE_ONCE(refused, NULL);
}

/**
 * vmx_vpid_was_refused - return whether this task got no VPID since the last forgetting
 */
bool vmx_vpid_was_refused(void)
{
	return READ_ONCE(refused) == current;
}

/**
 * vmx_vpid_lock_vpids - take KVM's lock of VPIDs, until vmx_vpid_unlock_vpids()
 *
 * Call this while kvm_intel's symbols are resolved.
 */
void vmx_vpid_lock_vpids(void)
{
	spin_lock((spinlock_t *)vmx_vpid_import_vmx_vpid_lock);
}

void vmx_vpid_unlock_vpids(void)
{
	spin_unlock((spinlock_t *)vmx_vpid_import_vmx_vpid_lock);
}

/**
 * vmx_vpid_now - return the time, in nanoseconds of the monotonic clock
 */
u64 vmx_vpid_now(void)
{
	return ktime_get_ns();
}

/**
 * vmx_vpid_call_on_cpu - call a function on a CPU, with interrupts off, and wait for it
 * @cpu: number of the CPU
 * @function: what to call
 * @data: what to call it with
 *
 * Return: 0, or an errno if the CPU is offline; the function was not called then.
 */
int vmx_vpid_call_on_cpu(int cpu, void (*function)(void *data), void *data)
{
	return smp_call_function_single(cpu, function, data, true);
}

/**
 * vmx_vpid_preempt_disable - keep the task on this CPU, until vmx_vpid_preempt_enable()
 */
void vmx_vpid_preempt_disable(void)
{
	preempt_disable();
}

void vmx_vpid_preempt_enable(void)
{
	preempt_enable();
}

/**
 * vmx_vpid_evmcs_in_use - return whether KVM runs on Hyper-V's enlightened VMCS
 *
 * Call this while kvm_intel's symbols are resolved.
 */
bool vmx_vpid_evmcs_in_use(void)
{
#if IS_ENABLED(CONFIG_HYPERV)
	return static_key_enabled((struct static_key *)vmx_vpid_import___kvm_is_using_evmcs);
#else
	return false;
#endif
}
