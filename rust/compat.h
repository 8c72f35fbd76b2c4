/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels that the module is built for, 7.2 and 7.3.
 * kvm/compat.rs is the Rust part.
 */
#ifndef VMX_VPID_COMPAT_H
#define VMX_VPID_COMPAT_H

#include <linux/kvm_host.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)

/* Whether an MMU translates the addresses of L2 by L1's EPT. */
#define vmx_vpid_walks_ngpa(arch, mmu)	(READ_ONCE((mmu)->w) == &(arch)->ngpa_walk)

#else

/* KVM walks a guest's tables by the MMU itself: there is no type for the walk. */
#define kvm_pagewalk			kvm_mmu
#define vmx_vpid_walks_ngpa(arch, mmu)	(READ_ONCE((arch)->walk_mmu) == &(arch)->nested_mmu)

#endif

#endif /* VMX_VPID_COMPAT_H */
