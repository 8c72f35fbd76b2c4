// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's table of exit handlers, as far as kvm/exit_handlers.rs has to know it.
 */
#include <linux/kvm_host.h>
#include <linux/rcupdate.h>
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
 * KVM reads the handler of an exit from the table and calls it, and does not sleep
 * in between.  It may be preempted there.  A grace period of RCU tasks ends when
 * each task has slept, or been in user space, or given up its CPU by itself: so
 * none is left that read the table before and has not made its call.  One that made
 * the call, and sleeps in the handler, is not waited for: livepatch sees it on its
 * stack.
 *
 * No lock of KVM's is needed, and a vCPU that waits for its memory does not hold
 * this up, as it would a wait for kvm->srcu.
 */
void vmx_vpid_wait_for_exits(void)
{
	synchronize_rcu_tasks();
}
