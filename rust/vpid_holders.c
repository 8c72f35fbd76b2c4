// SPDX-License-Identifier: GPL-2.0
/*
 * This file reads from KVM's lists which vCPU holds which VPID, while VMs are created
 * and destroyed.
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
	/* KVM does not clear the number when it frees vpid02. */
	if (READ_ONCE(vmx->nested.vmxon) || READ_ONCE(vmx->nested.smm.vmxon))
		claim(claims, vcpu, READ_ONCE(vmx->nested.vpid02), true);
}

static int by_vpid(const void *one, const void *other)
{
	const struct vmx_vpid_claim *a = one, *b = other;

	return (int)a->vpid - b->vpid;
}

/**
 * vmx_vpid_claims - list which vCPU claims to hold which VPID
 * @list: the array to fill
 * @room: number of claims that the array has room for
 *
 * The claims are sorted by VPID if the array has room for all.
 *
 * Call this while kvm_intel's symbols are resolved, in a task that may sleep.
 *
 * KVM adds a VM to its list before KVM creates the first vCPU of the VM, and removes
 * the VM from the list, with kvm_lock held, before KVM destroys the vCPUs.  vCPUs that
 * are counted in online_vcpus live as long as the VM, and the loop visits no others.
 * So each vCPU that the loop visits stays while kvm_lock is held.  The vCPU's own task
 * may write its fields at any time: a claim has the value at the time of the read.  KVM
 * allocates a VPID before the vCPU is on the list, and frees the VPID after the VM is
 * off the list: such a VPID has no claim.
 *
 * Return: the number of claims, which may be larger than @room.
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
