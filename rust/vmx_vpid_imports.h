/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The symbols that kvm.ko and kvm_intel.ko keep to themselves and vmx_vpid
 * needs, in the form of asm/kvm-x86-ops.h: included with KVM_IMPORT() and
 * KVM_INTEL_IMPORT() defined as what is wanted for each.
 */
#if !defined(KVM_IMPORT) || !defined(KVM_INTEL_IMPORT)
#error "define KVM_IMPORT() and KVM_INTEL_IMPORT() first"
#endif

/* How kvm_intel was set up. */
KVM_INTEL_IMPORT(enable_ept);
KVM_INTEL_IMPORT(enable_ept_ad_bits);
KVM_INTEL_IMPORT(enable_vpid);
#if IS_ENABLED(CONFIG_HYPERV)
KVM_INTEL_IMPORT(__kvm_is_using_evmcs);
#endif

/* Who owns which VPID, and the lock that guards it. */
KVM_INTEL_IMPORT(vmx_vpid_bitmap);
KVM_INTEL_IMPORT(vmx_vpid_lock);

/* KVM's static calls, and where they lead in C. */
KVM_INTEL_IMPORT(vmx_flush_tlb_all);
KVM_INTEL_IMPORT(vmx_flush_tlb_current);
KVM_INTEL_IMPORT(vmx_flush_tlb_gva);
KVM_INTEL_IMPORT(vmx_flush_tlb_guest);
KVM_IMPORT(__SCK__kvm_x86_flush_tlb_all);
KVM_IMPORT(__SCT__kvm_x86_flush_tlb_all);
KVM_IMPORT(__SCK__kvm_x86_flush_tlb_current);
KVM_IMPORT(__SCT__kvm_x86_flush_tlb_current);
KVM_IMPORT(__SCK__kvm_x86_flush_tlb_gva);
KVM_IMPORT(__SCT__kvm_x86_flush_tlb_gva);
KVM_IMPORT(__SCK__kvm_x86_flush_tlb_guest);
KVM_IMPORT(__SCT__kvm_x86_flush_tlb_guest);

#undef KVM_IMPORT
#undef KVM_INTEL_IMPORT
