// SPDX-License-Identifier: GPL-2.0
/*
 * The EPTs of running VMs: KVM's own lists of them, and looks into their tables.
 *
 * Nothing of KVM's is kept from one call to the next, neither a lock nor a reference:
 * a VM and a root are remembered by name, and looked up again.  So a
 * reader that is slow, or never comes back, keeps no VM alive and no vCPU waiting.
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
	/* The tables of a trust domain are not the host's to read. */
	return kvm->arch.vm_type != KVM_X86_TDX_VM;
}

/**
 * vmx_vpid_vms - list the VMs there are
 * @list: where to
 * @room: how many there is room for
 *
 * To be called while kvm_intel's symbols are resolved, in a task that may sleep.
 *
 * Return: how many there are, whether there was room for them or not.
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
 * A VM is taken off the list, with kvm_lock held, before anything of it is destroyed:
 * while that is held, one that is found stays.
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
 * What the CPU goes by: for L1 it is on whenever KVM has it, for an L2 with an EPT of its
 * own if L1 wants it.  For an L2 without, KVM's role says that it is on, yet the control
 * is off in vmcs02 (prepare_vmcs02_early() takes it from vmcs12): not mmu_has_mbec().
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

	/* One that is about to go away, or that is a trust domain's. */
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
 * @list: where to
 * @room: how many there is room for
 *
 * Those of the TDP MMU, and those of shadow pages: L1's with tdp_mmu=0, and L2's where
 * L1 gave it an EPT.
 *
 * To be called while kvm_intel's symbols are resolved and with ept=1, in a task that
 * may sleep.
 *
 * Return: how many there are, whether there was room for them or not; -1 if the VM is
 * no more.
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

/* What is unlinked of the TDP MMU's tables is freed by RCU, even while mmu_lock is held. */
static bool look_at_tdp(struct kvm *kvm, const struct vmx_vpid_vm_root *root, void *look)
{
	struct kvm_mmu_page *sp;
	bool found = false;

	/* KVM may have been loaded again, and without EPT. */
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

/* Shadow pages are freed by who holds mmu_lock for writing. */
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
 * vmx_vpid_look_at - have a piece of an EPT looked at
 * @vm: the VM
 * @root: its root
 * @look: what is given to vmx_vpid_look(), which must not sleep
 *
 * While vmx_vpid_look() runs, each table that it comes by stays a table; what is in it
 * is changed by vCPUs and CPUs at any time.
 *
 * To be called while kvm_intel's symbols are resolved, in a task that may sleep.
 *
 * Return: false when VM or root is no more.
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
 * vmx_vpid_is_table - tell whether KVM has a table somewhere
 * @table: physical address
 * @level: the level that it has to be of, 1 for that of pages of 4 KiB
 *
 * Each of KVM's tables has a struct kvm_mmu_page, by which the address is checked before
 * anything is read there.  An entry that refers to anything else is a fault, and where
 * its page leads may be no memory at all.
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
 * vmx_vpid_read_entry - read an entry of a table that vmx_vpid_is_table() told to be one
 * @at: its physical address
 */
u64 vmx_vpid_read_entry(hpa_t at)
{
	return READ_ONCE(*(u64 *)__va(at));
}

/**
 * vmx_vpid_may_go_on - let others run, and tell whether the task may go on
 *
 * Return: false when a signal is pending.
 */
bool vmx_vpid_may_go_on(void)
{
	cond_resched();
	return !signal_pending(current);
}
