// SPDX-License-Identifier: GPL-2.0
/* This file gives kvm/exit_handlers.rs access to KVM's table of exit handlers. */
#include <linux/kvm_host.h>
#include <linux/rcupdate.h>
#include "vmx_vpid.h"

/**
 * vmx_vpid_exit_handler - return the slot of an exit in the table
 * @exit_reason: an exit that the table has
 *
 * Call this while kvm_intel's symbols are resolved.
 *
 * Return: the address of the slot, which holds the address of the handler.
 */
void **vmx_vpid_exit_handler(u32 exit_reason)
{
	return (void **)vmx_vpid_import_kvm_vmx_exit_handlers + exit_reason;
}

/**
 * vmx_vpid_wait_for_exits - wait until no task is about to call a handler
 *
 * KVM reads the handler of an exit from the table and calls the handler, and does not
 * sleep in between, but may be preempted.  A grace period of RCU tasks ends when each
 * task has slept, has been in user space, or has given up its CPU voluntarily.  Then no
 * task is left that read the table before and has not called the handler yet.  A task
 * that sleeps in the handler does not delay the grace period: livepatch finds the
 * handler on that task's stack.
 *
 * This function needs no lock of KVM, and a vCPU that waits for its memory does not
 * delay it, as that vCPU would delay a wait for kvm->srcu.
 */
void vmx_vpid_wait_for_exits(void)
{
	synchronize_rcu_tasks();
}
