/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header lists the symbols of kvm.ko and kvm_intel.ko that vmx_vpid needs and that
 * these modules do not export, in the form of asm/kvm-x86-ops.h: a file that includes
 * this one defines five macros.
 *
 * KVM_IMPORT() and KVM_INTEL_IMPORT() import the address of data or of a function;
 * KVM_CALL() and KVM_INTEL_CALL() import a function to call; KVM_INTEL_BODY() imports
 * the body of a function that livepatch replaces.
 */
#if !defined(KVM_IMPORT) || !defined(KVM_INTEL_IMPORT) || \
	!defined(KVM_CALL) || !defined(KVM_INTEL_CALL) || !defined(KVM_INTEL_BODY)
#error "define the five macros first"
#endif

/* The setup of kvm_intel. */
KVM_INTEL_IMPORT(enable_ept);
KVM_INTEL_IMPORT(enable_ept_ad_bits);
KVM_INTEL_IMPORT(enable_mbec);
KVM_INTEL_IMPORT(enable_vpid);
KVM_INTEL_IMPORT(enable_vnmi);
KVM_IMPORT(allow_smaller_maxphyaddr);
KVM_IMPORT(tdp_mmu_enabled);
#if IS_ENABLED(CONFIG_HYPERV)
KVM_INTEL_IMPORT(__kvm_is_using_evmcs);
#endif

/* The bitmap of VPIDs, and the lock that guards the bitmap. */
KVM_INTEL_IMPORT(vmx_vpid_bitmap);
KVM_INTEL_IMPORT(vmx_vpid_lock);

/* kvm.ko itself: kvm_target.c compares its build-id with the one that the module was built for. */
KVM_IMPORT(__this_module);

/* The list of VMs, and the lock that guards the list. */
KVM_IMPORT(vm_list);
KVM_IMPORT(kvm_lock);

/*
 * Creation and destruction of a vCPU: livepatch replaces each by a function that calls
 * C's body.
 */
KVM_INTEL_IMPORT(vmx_vcpu_create);
KVM_INTEL_IMPORT(vmx_vcpu_free);
KVM_INTEL_BODY(vmx_vcpu_create);
KVM_INTEL_BODY(vmx_vcpu_free);

/* KVM's static calls, and the functions that they lead to in C. */
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

/* The table of exit handlers, and the handlers in C. */
KVM_INTEL_IMPORT(kvm_vmx_exit_handlers);
KVM_INTEL_IMPORT(handle_invlpg);
KVM_INTEL_IMPORT(handle_invpcid);
KVM_INTEL_IMPORT(handle_invvpid);
KVM_INTEL_IMPORT(handle_invept);
KVM_INTEL_IMPORT(handle_ept_violation);
KVM_INTEL_IMPORT(handle_ept_misconfig);

/* A guest's registers. */
KVM_INTEL_CALL(vmx_cache_reg);
KVM_INTEL_CALL(vmx_get_segment);
KVM_INTEL_CALL(vmx_get_rflags);
KVM_INTEL_CALL(vmx_set_rflags);

/* A guest's memory. */
KVM_CALL(kvm_vcpu_gfn_to_memslot);
KVM_CALL(mark_page_dirty_in_slot);

/* The end of an instruction: skipped, or with an exception, or in user space. */
KVM_CALL(kvm_skip_emulated_instruction);
KVM_CALL(kvm_queue_exception);
KVM_CALL(kvm_queue_exception_e);
KVM_CALL(__kvm_inject_emulated_page_fault);
KVM_CALL(kvm_prepare_emulation_failure_exit);

/* The tables that KVM runs a guest on. */
KVM_CALL(kvm_mmu_invalidate_addr);
KVM_CALL(kvm_mmu_free_roots);
KVM_CALL(kvm_mmu_free_guest_mode_roots);

/* KVM's work for a guest-physical address, and its trace events. */
KVM_CALL(kvm_mmu_page_fault);
KVM_CALL(kvm_emulate_instruction);
KVM_INTEL_CALL(vmx_check_emulate_instruction);
KVM_CALL(kvm_io_bus_write);
KVM_IMPORT(__tracepoint_kvm_page_fault);
KVM_CALL(__traceiter_kvm_page_fault);
KVM_IMPORT(__tracepoint_kvm_fast_mmio);
KVM_CALL(__traceiter_kvm_fast_mmio);

#undef KVM_IMPORT
#undef KVM_INTEL_IMPORT
#undef KVM_CALL
#undef KVM_INTEL_CALL
#undef KVM_INTEL_BODY
