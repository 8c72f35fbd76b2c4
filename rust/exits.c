// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's table of exit handlers, as far as kvm/exits.rs has to know it.
 */
#include <linux/kvm_host.h>
#include <linux/mutex.h>
#include <linux/srcu.h>
#include "vmx_vpid.h"

/**
 * vmx_vpid_exit_handler - find the place of an exit's handler
 * @exit_reason: the exit, one of those that the table has
 *
 * To be called while kvm_intel's symbols are resolved.
 *
 * Return: where the handler's address is.
 */
void **vmx_vpid_exit_handler(u32 exit_reason)
{
	return (void **)vmx_vpid_import_kvm_vmx_exit_handlers + exit_reason;
}

/**
 * vmx_vpid_wait_for_exits - wait until no task has a handler yet to call
 *
 * KVM reads the handler of an exit and calls it within one read-side section of
 * kvm->srcu, and none of the handlers here leaves it.  Who reads later finds what
 * the table holds now; who is inside a handler is seen on its stack by livepatch.
 *
 * kvm_lock keeps the VMs from being destroyed.  KVM itself waits for kvm->srcu
 * under locks that are taken under kvm_lock, so no reader can wait for it.
 *
 * To be called while kvm_intel's symbols are resolved.
 */
void vmx_vpid_wait_for_exits(void)
{
	struct list_head *vms = vmx_vpid_import_vm_list;
	struct mutex *lock = vmx_vpid_import_kvm_lock;
	struct kvm *kvm;

	mutex_lock(lock);
	list_for_each_entry(kvm, vms, vm_list)
		synchronize_srcu(&kvm->srcu);
	mutex_unlock(lock);
}
