/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header hides the differences between the kernels that the module is built for,
 * 7.2 and 7.3.  Kbuild defines VMX_VPID_LINUX_7_3 for 7.3 and later.  kvm/compat.rs is
 * the Rust part.
 */
#ifndef VMX_VPID_COMPAT_H
#define VMX_VPID_COMPAT_H

#include <linux/kvm_host.h>

/**
 * vmx_vpid_walks_ngpa - return whether an MMU translates the addresses of L2 by L1's EPT
 * @arch: the vCPU
 * @mmu: the MMU that the vCPU uses
 */
#ifdef VMX_VPID_LINUX_7_3
static inline bool vmx_vpid_walks_ngpa(const struct kvm_vcpu_arch *arch,
				       const struct kvm_mmu *mmu)
{
	return READ_ONCE(mmu->w) == &arch->ngpa_walk;
}
#else
static inline bool vmx_vpid_walks_ngpa(const struct kvm_vcpu_arch *arch,
				       const struct kvm_mmu *mmu)
{
	return READ_ONCE(arch->walk_mmu) == &arch->nested_mmu;
}

/* KVM walks a guest's tables by the MMU itself, and has no type for the walk. */
#define kvm_pagewalk	kvm_mmu
#endif

#endif /* VMX_VPID_COMPAT_H */
