// SPDX-License-Identifier: GPL-2.0
/*
 * Which vCPU holds which VPID: KVM's own lists, read while VMs come and go.
 */
#include <linux/kvm_host.h>
#include <linux/sort.h>
#include "vmx_vpid.h"

struct claims {
	struct vmx_vpid_claim *list;
	size_t room;
	size_t count;
};

static void claim(struct claims *claims, struct kvm_vcpu *vcpu, u16 vpid, bool l2)
{
	if (!vpid)
		return;

	if (claims->count < claims->room) {
		claims->list[claims->count] = (struct vmx_vpid_claim) {
			.vpid = vpid,
			.l2 = l2,
			.pid = READ_ONCE(vcpu->kvm->userspace_pid),
			.vcpu = vcpu->vcpu_id,
			.cpu = READ_ONCE(vcpu->cpu),
		};
	}
	claims->count++;
}

static void claim_vcpu(struct claims *claims, struct kvm_vcpu *vcpu)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);

	claim(claims, vcpu, READ_ONCE(vmx->vpid), false);
	/* KVM leaves the number where it was when it gives vpid02 back. */
	if (READ_ONCE(vmx->nested.vmxon) || READ_ONCE(vmx->nested.smm.vmxon))
		claim(claims, vcpu, READ_ONCE(vmx->nested.vpid02), true);
}

static int by_vpid(const void *one, const void *other)
{
	const struct vmx_vpid_claim *a = one, *b = other;

	return (int)a->vpid - b->vpid;
}

/**
 * vmx_vpid_claims - list which vCPU says that it holds which VPID
 * @list: where to
 * @room: how many claims there is room for
 *
 * Sorted by VPID if there was room for all.
 *
 * To be called while kvm_intel's symbols are resolved, in a task that may sleep.
 *
 * A VM is on KVM's list before the first of its vCPUs is created, and is taken off
 * it, with kvm_lock held, before they are destroyed; none that is counted in
 * online_vcpus is destroyed before the VM is, and the loop visits no others.  So while
 * kvm_lock is held every vCPU that is found stays.  Its fields are written by its own
 * task at any time: a claim is what was there when it was read.  Creation takes a VPID
 * before the vCPU is on the list, destruction of the VM gives it back after: such a
 * VPID has no claim.
 *
 * Return: how many claims there are, whether there was room for them or not.
 */
size_t vmx_vpid_claims(struct vmx_vpid_claim *list, size_t room)
{
	struct list_head *vms = vmx_vpid_import_vm_list;
	struct mutex *lock = vmx_vpid_import_kvm_lock;
	struct claims claims = { .list = list, .room = room };
	struct kvm_vcpu *vcpu;
	struct kvm *kvm;
	unsigned long i;

	mutex_lock(lock);
	list_for_each_entry(kvm, vms, vm_list) {
		/* A vCPU of a trust domain is no struct vcpu_vmx. */
		if (kvm->arch.vm_type == KVM_X86_TDX_VM)
			continue;
		kvm_for_each_vcpu(i, vcpu, kvm)
			claim_vcpu(&claims, vcpu);
	}
	mutex_unlock(lock);

	if (claims.count <= room)
		sort(list, claims.count, sizeof(*list), by_vpid, NULL);

	return claims.count;
}
