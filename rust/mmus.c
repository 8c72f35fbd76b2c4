// SPDX-License-Identifier: GPL-2.0
/*
 * This file reads from KVM's structures which MMU translates each vCPU's addresses, and
 * which roots KVM keeps, while vCPUs run.
 */
#include <linux/kvm_host.h>
#include <linux/uaccess.h>
#include "mmu.h"
#include "mmu/spte.h"
#include "vmx/vmx.h"
#include "vmx_vpid.h"

static struct vmx_vpid_root read_root(const struct kvm_mmu_root_info *info)
{
	struct vmx_vpid_root root;

	/* Retry if the vCPU's task wrote the root between the two reads. */
	do {
		root.hpa = READ_ONCE(info->hpa);
		root.pgd = READ_ONCE(info->pgd);
	} while (READ_ONCE(info->hpa) != root.hpa);

	root.valid = VALID_PAGE(root.hpa);
	root.dummy = kvm_mmu_is_dummy_root(root.hpa);
	return root;
}

/*
 * Return whether L1 gave the L2 that runs an EPT.  The vCPU may leave VMX operation and
 * free its vmcs12 at any time; the caller checks afterwards that the vCPU still runs
 * L2.
 */
static bool l1_gave_ept(const struct vcpu_vmx *vmx)
{
	const struct vmcs12 *vmcs12 = READ_ONCE(vmx->nested.cached_vmcs12);
	u32 primary, secondary;

	if (!vmcs12 ||
	    copy_from_kernel_nofault(&primary, &vmcs12->cpu_based_vm_exec_control,
				     sizeof(primary)) ||
	    copy_from_kernel_nofault(&secondary, &vmcs12->secondary_vm_exec_control,
				     sizeof(secondary)))
		return false;

	return primary & CPU_BASED_ACTIVATE_SECONDARY_CONTROLS &&
	       secondary & SECONDARY_EXEC_ENABLE_EPT;
}

static u8 paging_levels(const struct kvm_vcpu_arch *arch)
{
	unsigned long cr4 = READ_ONCE(arch->cr4);

	if (!(READ_ONCE(arch->cr0) & X86_CR0_PG))
		return 0;
	if (READ_ONCE(arch->efer) & EFER_LMA)
		return cr4 & X86_CR4_LA57 ? 5 : 4;
	return cr4 & X86_CR4_PAE ? 3 : 2;
}

static void look_at(struct kvm_vcpu *vcpu, struct vmx_vpid_mmu *line)
{
	const struct kvm_vcpu_arch *arch = &vcpu->arch;
	const struct kvm_mmu *mmu = READ_ONCE(arch->mmu);
	union kvm_mmu_page_role role = { .word = READ_ONCE(mmu->root_role.word) };
	const struct kvm_mmu *other;
	int i;

	*line = (struct vmx_vpid_mmu) {
		.pid = READ_ONCE(vcpu->kvm->userspace_pid),
		.vcpu = vcpu->vcpu_id,
		.levels = paging_levels(arch),
		.pcids = READ_ONCE(arch->cr4) & X86_CR4_PCIDE,
		.l2 = READ_ONCE(arch->hflags) & HF_GUEST_MASK,
		.ept12 = l1_gave_ept(to_vmx(vcpu)),
		.guest_mmu = mmu == &arch->guest_mmu,
		.ngpa_walk = vmx_vpid_walks_ngpa(arch, mmu),
		.direct = role.direct,
		.guest_mode = role.guest_mode,
		.level = role.level,
		.root = read_root(&mmu->root),
	};
	for (i = 0; i < KVM_MMU_NUM_PREV_ROOTS; i++)
		line->prev[i] = read_root(&mmu->prev_roots[i]);
	other = line->guest_mmu ? &arch->root_mmu : &arch->guest_mmu;
	line->other = read_root(&other->root);
	/*
	 * The values of vmcs12 are valid only if the vCPU ran L2 before and after the
	 * read.
	 */
	line->l2 &= !!(READ_ONCE(arch->hflags) & HF_GUEST_MASK);
	line->ept12 &= line->l2;
}

/**
 * vmx_vpid_mmus - list the MMU and the roots of each vCPU
 * @list: the array to fill
 * @room: number of vCPUs that the array has room for
 *
 * Call this while the symbols of kvm.ko are resolved, in a task that may sleep.
 *
 * Each vCPU that the loop visits stays while kvm_lock is held, see vmx_vpid_claims().
 * The vCPU's own task may write the vCPU's fields at any time, and this function takes
 * no lock of the vCPU: if the vCPU enters or leaves L2 during the read, the line may
 * have one half of each state.
 *
 * Return: the number of vCPUs, which may be larger than @room.
 */
size_t vmx_vpid_mmus(struct vmx_vpid_mmu *list, size_t room)
{
	struct list_head *vms = vmx_vpid_import_vm_list;
	struct mutex *lock = vmx_vpid_import_kvm_lock;
	struct kvm_vcpu *vcpu;
	size_t count = 0;
	struct kvm *kvm;
	unsigned long i;

	mutex_lock(lock);
	list_for_each_entry(kvm, vms, vm_list) {
		/* A vCPU of a trust domain is no struct vcpu_vmx. */
		if (kvm->arch.vm_type == KVM_X86_TDX_VM)
			continue;
		kvm_for_each_vcpu(i, vcpu, kvm) {
			if (count < room)
				look_at(vcpu, &list[count]);
			count++;
		}
	}
	mutex_unlock(lock);

	return count;
}
