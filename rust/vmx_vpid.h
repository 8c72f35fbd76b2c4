/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the C part and the Rust part of vmx_vpid know of each other.
 *
 * bindgen reads this file too, so that every signature is written once.
 */
#ifndef VMX_VPID_H
#define VMX_VPID_H

#include <linux/kvm_host.h>
#include <linux/percpu.h>

/*
 * The operations of a backend, in the manner of kvm_x86_ops: each has the name
 * and the signature of the kvm_intel function (less "vmx_") that it replaces.
 */
struct vmx_vpid_ops {
	int (*allocate_vpid)(void);
	void (*free_vpid)(int vpid);
	void (*flush_tlb_all)(struct kvm_vcpu *vcpu);
	void (*flush_tlb_current)(struct kvm_vcpu *vcpu);
	void (*flush_tlb_gva)(struct kvm_vcpu *vcpu, gva_t addr, bool *full);
	void (*flush_tlb_guest)(struct kvm_vcpu *vcpu);
};

/*
 * Imports: the address of a symbol that kvm.ko or kvm_intel.ko keep to
 * themselves, filled in by livepatch before pre_patch and emptied after
 * post_unpatch.
 */
#define KVM_IMPORT(name)	extern void *vmx_vpid_import_##name
#define KVM_INTEL_IMPORT(name)	KVM_IMPORT(name)
#include "vmx_vpid_imports.h"

/* The one import that is there as soon as the module is loaded: see klp.c. */
extern void *vmx_vpid_import_linux_banner;

/* klp.c */
bool vmx_vpid_post_linked(void);
int vmx_vpid_klp_enable(const struct vmx_vpid_ops *ops);
int vmx_vpid_notifier_register(void);
void vmx_vpid_notifier_unregister(void);

/* Livepatch's callbacks and the notifier's news, in kvm/handover.rs. */
int vmx_vpid_pre_patch(bool live);
void vmx_vpid_post_patch(bool live);
void vmx_vpid_pre_unpatch(void);
void vmx_vpid_post_unpatch(void);
void vmx_vpid_kvm_intel_state(bool live);

/* debugfs.c, and what it shows, in kvm/files.rs. */
struct seq_file;
void vmx_vpid_debugfs_create(void);
void vmx_vpid_debugfs_remove(void);
void vmx_vpid_show_stats(struct seq_file *file);
void vmx_vpid_show_status(struct seq_file *file);

/* helpers.c */
#define VMX_VPID_NR_COUNTERS	64
DECLARE_PER_CPU(u64 [VMX_VPID_NR_COUNTERS], vmx_vpid_counters);

u64 vmx_vpid_counter_sum(unsigned int counter);
int vmx_vpid_read_caps(u64 *caps);
bool vmx_vpid_ept_root(hpa_t root, int *levels, bool *ad_disabled);
bool vmx_vpid_evmcs_in_use(void);

#endif /* VMX_VPID_H */
