// SPDX-License-Identifier: GPL-2.0
/*
 * This file reads the EPTs of running VMs from KVM's lists and tables.
 *
 * Between two calls this file holds neither a lock nor a reference of KVM: the caller
 * names a VM and a root, and each call looks them up again.  So a reader that is slow,
 * or never continues, keeps no VM alive and no vCPU waiting.
 */
#include <linux/kvm_host.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include "mmu/mmu_internal.h"
#include "mmu/spte.h"
#include "vmx_vpid.h"

static bool has_ept(const struct kvm *kvm)
{
	/* The host cannot read the tables of a trust domain. */
	return kvm->arch.vm_type != KVM_X86_TDX_VM;
}

/**
 * vmx_vpid_vms - list the VMs, without trust domains
 * @list: the array to fill
 * @room: number of VMs that the array has room for
 *
 * Call this while kvm_intel's symbols are resolved, in a task that may sleep.
 *
 * Return: the number of VMs, which may be larger than @room.
 */
size_t vmx_vpid_vms(struct vmx_vpid_vm *list, size_t room)
{
	struct list_head *vms = vmx_vpid_import_vm_list;
	struct mutex *lock = vmx_vpid_import_kvm_lock;
	size_t count = 0;
	struct kvm *kvm;

	mutex_lock(lock);
	list_for_each_entry(kvm, vms, vm_list) {
		if (!has_ept(kvm))
			continue;
		if (count < room) {
			list[count] = (struct vmx_vpid_vm) {
				.kvm = (unsigned long)kvm,
				.pid = READ_ONCE(kvm->userspace_pid),
			};
		}
		count++;
	}
	mutex_unlock(lock);

	return count;
}

/*
 * KVM removes a VM from the list, with kvm_lock held, before KVM destroys any part of
 * the VM: a VM that this function finds stays while kvm_lock is held.
 */
static struct kvm *find_vm(const struct vmx_vpid_vm *vm)
{
	struct list_head *vms = vmx_vpid_import_vm_list;
	struct kvm *kvm;

	list_for_each_entry(kvm, vms, vm_list) {
		if ((unsigned long)kvm == vm->kvm && READ_ONCE(kvm->userspace_pid) == vm->pid)
			return has_ept(kvm) ? kvm : NULL;
	}

	return NULL;
}

static bool tdp_mmu(void)
{
	return READ_ONCE(*(bool *)vmx_vpid_import_tdp_mmu_enabled);
}

/*
 * Return whether mode-based execute control is on in the VMCS.  For L1 the control is
 * on whenever KVM has it; for an L2 with an EPT of its own, if L1 sets it.  For an L2
 * without an EPT of its own, KVM's role has the control on, but the control is off in
 * vmcs02, since prepare_vmcs02_early() takes it from vmcs12; so this function differs
 * from mmu_has_mbec().
 */
static bool has_mbec(union kvm_mmu_page_role role)
{
	if (!READ_ONCE(*(bool *)vmx_vpid_import_enable_mbec))
		return false;

	return role.direct ? !role.guest_mode : role.cr4_smep;
}

static void note_root(struct vmx_vpid_vm_root *list, size_t room, size_t *count,
		      struct kvm_mmu_page *sp, bool tdp)
{
	union kvm_mmu_page_role role = { .word = READ_ONCE(sp->role.word) };

	/* The root is about to be freed, or is a trust domain's. */
	if (role.invalid || role.is_mirror)
		return;

	if (*count < room) {
		list[*count] = (struct vmx_vpid_vm_root) {
			.table = __pa(sp->spt),
			.role = role.word,
			.levels = role.level,
			.tdp = tdp,
			.direct = role.direct,
			.l2 = role.guest_mode,
			.smm = role.smm,
			.mbec = has_mbec(role),
			.ad = READ_ONCE(*(bool *)vmx_vpid_import_enable_ept_ad_bits) &&
			      !role.ad_disabled,
		};
	}
	(*count)++;
}

static bool is_root(struct kvm_mmu_page *sp, const struct vmx_vpid_vm_root *root)
{
	return READ_ONCE(sp->role.word) == root->role && __pa(sp->spt) == root->table;
}

/**
 * vmx_vpid_roots - list the roots of a VM's EPTs
 * @vm: the VM
 * @list: the array to fill
 * @room: number of roots that the array has room for
 *
 * The list has the roots of the TDP MMU, and the roots of shadow pages: L1's with
 * tdp_mmu=0, and L2's if L1 gave L2 an EPT.
 *
 * Call this while kvm_intel's symbols are resolved and with ept=1, in a task that may
 * sleep.
 *
 * Return: the number of roots, which may be larger than @room; -1 if the VM no longer
 * exists.
 */
ssize_t vmx_vpid_roots(const struct vmx_vpid_vm *vm, struct vmx_vpid_vm_root *list, size_t room)
{
	struct mutex *lock = vmx_vpid_import_kvm_lock;
	struct kvm_mmu_page *sp;
	size_t count = 0;
	struct kvm *kvm;

	mutex_lock(lock);
	kvm = find_vm(vm);
	if (kvm) {
		read_lock(&kvm->mmu_lock);
		if (tdp_mmu()) {
			rcu_read_lock();
			list_for_each_entry_rcu(sp, &kvm->arch.tdp_mmu_roots, link)
				note_root(list, room, &count, sp, true);
			rcu_read_unlock();
		}
		list_for_each_entry(sp, &kvm->arch.active_mmu_pages, link) {
			if (sp->root_count)
				note_root(list, room, &count, sp, false);
		}
		read_unlock(&kvm->mmu_lock);
	}
	mutex_unlock(lock);

	return kvm ? count : -1;
}

/* KVM frees unlinked tables of the TDP MMU by RCU, even while mmu_lock is held. */
static bool look_at_tdp(struct kvm *kvm, const struct vmx_vpid_vm_root *root, void *look)
{
	struct kvm_mmu_page *sp;
	bool found = false;

	/*
	 * KVM may have been loaded again since the look-up of the root, and without
	 * EPT.
	 */
	if (!tdp_mmu())
		return false;

	rcu_read_lock();
	list_for_each_entry_rcu(sp, &kvm->arch.tdp_mmu_roots, link) {
		found = is_root(sp, root);
		if (found) {
			vmx_vpid_look(look);
			break;
		}
	}
	rcu_read_unlock();

	return found;
}

/* KVM frees shadow pages with mmu_lock held for writing. */
static bool look_at_shadow(struct kvm *kvm, const struct vmx_vpid_vm_root *root, void *look)
{
	struct kvm_mmu_page *sp;
	bool found = false;

	read_lock(&kvm->mmu_lock);
	list_for_each_entry(sp, &kvm->arch.active_mmu_pages, link) {
		found = sp->root_count && is_root(sp, root);
		if (found) {
			vmx_vpid_look(look);
			break;
		}
	}
	read_unlock(&kvm->mmu_lock);

	return found;
}

/**
 * vmx_vpid_look_at - call vmx_vpid_look() while the tables of an EPT stay
 * @vm: the VM
 * @root: its root
 * @look: the argument of vmx_vpid_look(), which must not sleep
 *
 * While vmx_vpid_look() runs, KVM frees no table that it visits; vCPUs and CPUs may
 * change entries of the tables at any time.
 *
 * Call this while kvm_intel's symbols are resolved, in a task that may sleep.
 *
 * Return: false if the VM or the root no longer exists.
 */
bool vmx_vpid_look_at(const struct vmx_vpid_vm *vm, const struct vmx_vpid_vm_root *root, void *look)
{
	struct mutex *lock = vmx_vpid_import_kvm_lock;
	bool found = false;
	struct kvm *kvm;

	mutex_lock(lock);
	kvm = find_vm(vm);
	if (kvm)
		found = root->tdp ? look_at_tdp(kvm, root, look) : look_at_shadow(kvm, root, look);
	mutex_unlock(lock);

	return found;
}

/**
 * vmx_vpid_is_table - return whether KVM has a table at an address
 * @table: physical address
 * @level: the level of the table; 1 for a table of pages of 4 KiB
 *
 * Each of KVM's tables has a struct kvm_mmu_page.  This function finds the struct by
 * the address before anything is read at the address: a faulty entry may refer to any
 * address, even to one without memory.
 */
bool vmx_vpid_is_table(hpa_t table, int level)
{
	unsigned long pfn = table >> PAGE_SHIFT;
	union kvm_mmu_page_role role;
	struct kvm_mmu_page *sp;
	u64 *spt;

	if (!pfn_valid(pfn))
		return false;

	sp = to_shadow_page(table);
	if (!sp || get_kernel_nofault(spt, &sp->spt) || get_kernel_nofault(role, &sp->role))
		return false;

	return spt == __va(table) && role.level == level;
}

/**
 * vmx_vpid_read_entry - read an entry of a table that vmx_vpid_is_table() accepted
 * @at: physical address of the entry
 */
u64 vmx_vpid_read_entry(hpa_t at)
{
	return READ_ONCE(*(u64 *)__va(at));
}

/**
 * vmx_vpid_may_go_on - let other tasks run, and return whether the task may continue
 *
 * Return: false if a signal is pending.
 */
bool vmx_vpid_may_go_on(void)
{
	cond_resched();
	return !signal_pending(current);
}
