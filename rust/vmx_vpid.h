/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header has the declarations that the C part and the Rust part of vmx_vpid share.
 *
 * bindgen reads this file too, so that every signature is written once.
 */
#ifndef VMX_VPID_H
#define VMX_VPID_H

#include <linux/kvm_host.h>
#include <linux/percpu.h>
#include "mmu.h"
#include "trace.h"
#include "x86.h"
#include "vmx/vmx.h"
#include "vmx/x86_ops.h"
#include "compat.h"

/*
 * The operations of a backend, in the manner of kvm_x86_ops: each has the name and the
 * signature of the kvm_intel function that it replaces, without "vmx_".
 */
struct vmx_vpid_ops {
	int (*allocate_vpid)(void);
	void (*free_vpid)(int vpid);
	void (*flush_tlb_all)(struct kvm_vcpu *vcpu);
	void (*flush_tlb_current)(struct kvm_vcpu *vcpu);
	void (*flush_tlb_gva)(struct kvm_vcpu *vcpu, gva_t addr, bool *full);
	void (*flush_tlb_guest)(struct kvm_vcpu *vcpu);
	int (*handle_invlpg)(struct kvm_vcpu *vcpu);
	int (*handle_invpcid)(struct kvm_vcpu *vcpu);
	int (*handle_invvpid)(struct kvm_vcpu *vcpu);
	int (*handle_invept)(struct kvm_vcpu *vcpu);
	int (*handle_ept_violation)(struct kvm_vcpu *vcpu);
	int (*handle_ept_misconfig)(struct kvm_vcpu *vcpu);
	int (*vcpu_create)(struct kvm_vcpu *vcpu);
	void (*vcpu_free)(struct kvm_vcpu *vcpu);
};

/* The bodies of C's functions, which the operations vcpu_create and vcpu_free call. */
int vmx_vpid_body_vmx_vcpu_create(struct kvm_vcpu *vcpu);
void vmx_vpid_body_vmx_vcpu_free(struct kvm_vcpu *vcpu);

/*
 * Stubs, each of which jumps to a function of KVM.  Rust may call a stub only while KVM
 * calls an operation.
 */
void vmx_vpid_call_vmx_cache_reg(struct kvm_vcpu *vcpu, enum kvm_reg reg);
void vmx_vpid_call_vmx_get_segment(struct kvm_vcpu *vcpu, struct kvm_segment *var, int seg);
unsigned long vmx_vpid_call_vmx_get_rflags(struct kvm_vcpu *vcpu);
void vmx_vpid_call_vmx_set_rflags(struct kvm_vcpu *vcpu, unsigned long rflags);
struct kvm_memory_slot *vmx_vpid_call_kvm_vcpu_gfn_to_memslot(struct kvm_vcpu *vcpu,
							      gfn_t gfn);
void vmx_vpid_call_mark_page_dirty_in_slot(struct kvm *kvm,
					   const struct kvm_memory_slot *slot, gfn_t gfn);
int vmx_vpid_call_kvm_skip_emulated_instruction(struct kvm_vcpu *vcpu);
void vmx_vpid_call_kvm_queue_exception(struct kvm_vcpu *vcpu, unsigned int nr);
void vmx_vpid_call_kvm_queue_exception_e(struct kvm_vcpu *vcpu, unsigned int nr,
					 u32 error_code);
void vmx_vpid_call___kvm_inject_emulated_page_fault(struct kvm_vcpu *vcpu,
						    struct x86_exception *fault,
						    bool from_hardware);
void vmx_vpid_call_kvm_prepare_emulation_failure_exit(struct kvm_vcpu *vcpu);
void vmx_vpid_call_kvm_mmu_invalidate_addr(struct kvm_vcpu *vcpu, struct kvm_pagewalk *w,
					   u64 addr, unsigned long roots);
void vmx_vpid_call_kvm_mmu_free_roots(struct kvm *kvm, struct kvm_mmu *mmu,
				      unsigned long roots_to_free);
void vmx_vpid_call_kvm_mmu_free_guest_mode_roots(struct kvm *kvm, struct kvm_mmu *mmu);
int vmx_vpid_call_kvm_mmu_page_fault(struct kvm_vcpu *vcpu, gpa_t cr2_or_gpa, u64 error_code,
				     void *insn, int insn_len);
int vmx_vpid_call_kvm_emulate_instruction(struct kvm_vcpu *vcpu, int emulation_type);
int vmx_vpid_call_vmx_check_emulate_instruction(struct kvm_vcpu *vcpu, int emul_type,
						void *insn, int insn_len);
int vmx_vpid_call_kvm_io_bus_write(struct kvm_vcpu *vcpu, enum kvm_bus bus_idx, gpa_t addr,
				   int len, const void *val);
int vmx_vpid_call___traceiter_kvm_page_fault(void *data, struct kvm_vcpu *vcpu,
					     u64 fault_address, u64 error_code);
int vmx_vpid_call___traceiter_kvm_fast_mmio(void *data, u64 gpa);

/*
 * Imports: the address of a symbol that kvm.ko or kvm_intel.ko do not export.
 * Livepatch fills the address in before pre_patch and clears it after post_unpatch.  A
 * stub must have the type that KVM gives the function.
 */
#define KVM_IMPORT(name)	extern void *vmx_vpid_import_##name
#define KVM_INTEL_IMPORT(name)	KVM_IMPORT(name)
#define KVM_CALL(name)		static_assert(__same_type(name, vmx_vpid_call_##name))
#define KVM_INTEL_CALL(name)	KVM_CALL(name)
#define KVM_INTEL_BODY(name)	static_assert(__same_type(name, vmx_vpid_body_##name))
#include "vmx_vpid_imports.h"

/*
 * The types that imports of data are cast to, compared with KVM's declarations.  Only
 * vmx/vmx.c declares vmx_vpid_bitmap, vmx_vpid_lock, enable_vnmi and
 * kvm_vmx_exit_handlers, so there is nothing to compare their types with.
 */
#define VMX_VPID_IMPORT_TYPE(name, type)	static_assert(__same_type(name, type))
VMX_VPID_IMPORT_TYPE(enable_ept, bool);
VMX_VPID_IMPORT_TYPE(enable_ept_ad_bits, bool);
VMX_VPID_IMPORT_TYPE(enable_mbec, bool);
VMX_VPID_IMPORT_TYPE(enable_vpid, bool);
VMX_VPID_IMPORT_TYPE(allow_smaller_maxphyaddr, bool);
VMX_VPID_IMPORT_TYPE(tdp_mmu_enabled, bool);
VMX_VPID_IMPORT_TYPE(vm_list, struct list_head);
VMX_VPID_IMPORT_TYPE(kvm_lock, struct mutex);
VMX_VPID_IMPORT_TYPE(STATIC_CALL_KEY(kvm_x86_flush_tlb_all), struct static_call_key);
VMX_VPID_IMPORT_TYPE(STATIC_CALL_KEY(kvm_x86_flush_tlb_current), struct static_call_key);
VMX_VPID_IMPORT_TYPE(STATIC_CALL_KEY(kvm_x86_flush_tlb_gva), struct static_call_key);
VMX_VPID_IMPORT_TYPE(STATIC_CALL_KEY(kvm_x86_flush_tlb_guest), struct static_call_key);
VMX_VPID_IMPORT_TYPE(__tracepoint_kvm_page_fault, struct tracepoint);
VMX_VPID_IMPORT_TYPE(__tracepoint_kvm_fast_mmio, struct tracepoint);
#undef VMX_VPID_IMPORT_TYPE

/* The imports that are filled in while the module is loaded: see klp.c. */
extern void *vmx_vpid_import_linux_banner;
extern void *vmx_vpid_import_cpu_tlbstate;
extern void *vmx_vpid_import_cpu_tlbstate_shared;
extern void *vmx_vpid_import___start_notes;
extern void *vmx_vpid_import___stop_notes;

/* kvm_target.c */
struct module;
int vmx_vpid_target_check_vmlinux(void);
int vmx_vpid_target_check_kvm(const struct module *kvm_intel);

/* Sizes and offsets as the C compiler has them, for kvm.rs to compare with the bindings. */
struct vmx_vpid_layout {
	u32 kvm_vcpu;		/* sizes */
	u32 vcpu_vmx;
	u32 vmcs12;
	u32 arch_mmu;		/* offsets in struct kvm_vcpu */
	u32 arch_regs;
	u32 arch_cr3;
	u32 arch_hflags;
	u32 vmx_vpid;		/* offsets in struct vcpu_vmx */
	u32 vmx_nested;
	u32 vmx_loaded_vmcs;
	u32 vmx_exit_reason;
};

extern const struct vmx_vpid_layout vmx_vpid_layout;

/* klp.c */
struct klp_object;
bool vmx_vpid_post_linked(void);
bool vmx_vpid_object_live(const struct klp_object *obj);
int vmx_vpid_klp_enable(const struct vmx_vpid_ops *ops);
int vmx_vpid_notifier_register(void);
void vmx_vpid_notifier_unregister(void);

/* Livepatch's callbacks and the module notifier, in kvm/attach.rs. */
int vmx_vpid_pre_patch(const struct klp_object *obj);
void vmx_vpid_post_patch(const struct klp_object *obj);
void vmx_vpid_pre_unpatch(void);
void vmx_vpid_post_unpatch(void);
void vmx_vpid_kvm_intel_state(bool live);

/* debugfs.c, and the functions that print its files, in debugfs.rs. */
struct seq_file;
void vmx_vpid_debugfs_create(void);
void vmx_vpid_debugfs_remove(void);
void vmx_vpid_show_stats(struct seq_file *file);
void vmx_vpid_show_status(struct seq_file *file);
void vmx_vpid_show_asid(struct seq_file *file);
int vmx_vpid_show_roots(struct seq_file *file);
void vmx_vpid_show_vmcs(struct seq_file *file);

/* The list of VPIDs in use, made when the file is opened. */
int vmx_vpid_list_take(void **list);
void vmx_vpid_list_drop(void *list);
bool vmx_vpid_list_has(const void *list, u64 line);
void vmx_vpid_list_show(const void *list, u64 line, struct seq_file *file);

/* The state of one opening of "ept" or "ept_summary", in debugfs/ept.rs. */
int vmx_vpid_ept_open(bool summary, pid_t pid, void **seq);
void vmx_vpid_ept_close(void *seq);
int vmx_vpid_ept_line(void *seq, u64 line);
void vmx_vpid_ept_show(const void *seq, struct seq_file *file);

/* The switches that can be changed at run time, in kvm/switches.rs. */
enum vmx_vpid_switch {
	VMX_VPID_FORCE_FLUSH,
	VMX_VPID_FLUSH_CONTEXT,
	VMX_VPID_CAPS_MASK,
	VMX_VPID_ASID_FOLLOW,
	VMX_VPID_ASID_TWIST,
	VMX_VPID_CHECK_VMCS,
};

u64 vmx_vpid_switch_get(enum vmx_vpid_switch which);
int vmx_vpid_switch_set(enum vmx_vpid_switch which, u64 value);

/* trace.c */
void vmx_vpid_emit_acquire(u16 vpid);
void vmx_vpid_emit_release(u16 vpid, bool held);
void vmx_vpid_emit_invvpid(u8 extent, u16 vpid, u64 address, u8 reason);
void vmx_vpid_emit_invept(u8 extent, u64 eptp, u8 reason);
void vmx_vpid_emit_attach(u32 vpids);
void vmx_vpid_emit_detach(u32 vpids);
void vmx_vpid_emit_kvm_page_fault(struct kvm_vcpu *vcpu, u64 address, u64 error_code);
void vmx_vpid_emit_kvm_fast_mmio(u64 gpa);

/* vpid_holders.c */
struct vmx_vpid_claim {
	u16 vpid;
	bool l2;	/* the VPID is the vCPU's vpid02 */
	pid_t pid;	/* of the process that created the VM */
	int vcpu;	/* number of the vCPU in the VM */
	int cpu;	/* where the vCPU is loaded, or was last; -1 for nowhere */
};

size_t vmx_vpid_claims(struct vmx_vpid_claim *list, size_t room);

/* mmus.c */
struct vmx_vpid_root {
	hpa_t hpa;
	gpa_t pgd;	/* CR3, or L1's EPT pointer, that the root was made for */
	bool valid;	/* there is a root */
	bool dummy;	/* the root of tables that the guest has no memory for */
};

struct vmx_vpid_mmu {
	pid_t pid;	/* of the process that created the VM */
	int vcpu;	/* number of the vCPU in the VM */

	/* The setup of the vCPU. */
	u8 levels;	/* of the paging of the guest that runs; 0 for none */
	bool pcids;	/* CR4.PCIDE of that guest */
	bool l2;	/* that guest is L2 */
	bool ept12;	/* L1 gave that L2 an EPT */

	/* The MMU that KVM has set up for the vCPU. */
	bool guest_mmu;	/* the second set of roots is in use */
	bool ngpa_walk;	/* KVM walks L1's EPT */
	bool direct;	/* KVM makes the tables from memslots, not from guest tables */
	bool guest_mode;	/* the tables are for L2 */
	u8 level;	/* of the root */
	struct vmx_vpid_root root;
	struct vmx_vpid_root prev[KVM_MMU_NUM_PREV_ROOTS];
	struct vmx_vpid_root other;	/* the root of the set not in use */
};

size_t vmx_vpid_mmus(struct vmx_vpid_mmu *list, size_t room);

/* roots.c */
struct vmx_vpid_vm {
	unsigned long kvm;	/* address of the struct kvm, to compare and never to follow */
	pid_t pid;		/* of the process that created the VM */
};

struct vmx_vpid_vm_root {
	hpa_t table;
	u32 role;	/* KVM's key of the shadow page */
	u8 levels;
	bool tdp;	/* the root is the TDP MMU's */
	bool direct;	/* the EPT maps the VM's memory, and shadows no EPT of L1 */
	bool l2;	/* L2 runs on the root */
	bool smm;	/* for system-management mode */
	bool mbec;	/* with mode-based execute control */
	bool ad;	/* with accessed and dirty flags */
};

size_t vmx_vpid_vms(struct vmx_vpid_vm *list, size_t room);
ssize_t vmx_vpid_roots(const struct vmx_vpid_vm *vm, struct vmx_vpid_vm_root *list, size_t room);
bool vmx_vpid_look_at(const struct vmx_vpid_vm *vm, const struct vmx_vpid_vm_root *root,
		      void *look);
void vmx_vpid_look(void *look);
bool vmx_vpid_is_table(hpa_t table, int level);
u64 vmx_vpid_read_entry(hpa_t at);
bool vmx_vpid_may_go_on(void);

/* helpers.c */
#define VMX_VPID_NR_COUNTERS	64
DECLARE_PER_CPU(u64 [VMX_VPID_NR_COUNTERS], vmx_vpid_counters);

/* A CPU's part of FlushedCpus: kvm/flushed_cpus.rs. */
struct vmx_vpid_flushed_on_cpu {
	u64 *words;	/* one for each VPID */
	u64 bit;	/* the CPU's bit in each word */
};
DECLARE_PER_CPU(struct vmx_vpid_flushed_on_cpu, vmx_vpid_flushed_on_cpu);

/* The capabilities of the CPU, read when the module is loaded. */
extern struct vmx_vpid_cpu {
	u64 ept_vpid_cap;	/* IA32_VMX_EPT_VPID_CAP */
	bool la57;		/* linear addresses may have 57 bits, used or not */
	u8 maxphyaddr;		/* bits of a physical address */
} vmx_vpid_cpu;

/*
 * The state that flushes read.  The members are plain words, each read and written by
 * one access, since Rust calls a function for each load of an atomic.
 */
extern struct vmx_vpid_state {
	u32 policy;	/* kvm/switches.rs */
	u64 *flushed;	/* kvm/flushed_cpus.rs */
	size_t flushed_rest;
} vmx_vpid_state;

/* The static branches that send flushes to the slow path. */
extern struct vmx_vpid_keys {
	struct static_key_false all_need_slow_path;	/* for a flush of all */
	struct static_key_false others_need_slow_path;	/* for the others */
} vmx_vpid_keys;
void vmx_vpid_set_slow_path(bool all, bool others);
void vmx_vpid_remember_refusal(void);
void vmx_vpid_forget_refusal(void);
bool vmx_vpid_was_refused(void);
void vmx_vpid_lock_vpids(void);
void vmx_vpid_unlock_vpids(void);
u64 vmx_vpid_counter_sum(unsigned int counter);
int vmx_vpid_read_cpu(void);
void vmx_vpid_set_flushed_on_cpu(unsigned int cpu, u64 *words, u64 bit);
union kvm_mmu_page_role vmx_vpid_root_role(hpa_t root);
bool vmx_vpid_evmcs_in_use(void);
u64 vmx_vpid_now(void);
int vmx_vpid_call_on_cpu(int cpu, void (*function)(void *data), void *data);
void vmx_vpid_preempt_disable(void);
void vmx_vpid_preempt_enable(void);

/* exit_handlers.c */
void **vmx_vpid_exit_handler(u32 exit_reason);
void vmx_vpid_wait_for_exits(void);

/* vcpu_regs.c */
struct vmx_vpid_entry {
	u64 value;
	bool present;	/* the guest has memory at the entry's address */
};

/* A memslot through which guest memory is accessed; size 0 before the first access. */
struct vmx_vpid_window {
	gpa_t gpa;
	u64 size;	/* bytes */
	void __user *user;
	struct kvm_memory_slot *slot;
};

struct vmx_vpid_entry vmx_vpid_guest_read_entry(struct kvm_vcpu *vcpu,
						struct vmx_vpid_window *window,
						gpa_t gpa, bool wide);
int vmx_vpid_guest_read(struct kvm_vcpu *vcpu, struct vmx_vpid_window *window, gpa_t gpa,
			void *data, unsigned long len);
int vmx_vpid_guest_exchange_entry(struct kvm_vcpu *vcpu, struct vmx_vpid_window *window,
				  gpa_t gpa, bool wide, u64 old, u64 new);
void vmx_vpid_raise(struct kvm_vcpu *vcpu, unsigned int vector);
void vmx_vpid_raise_page_fault(struct kvm_vcpu *vcpu, gva_t address, u32 error_code);
void vmx_vpid_request_sync(struct kvm_vcpu *vcpu);
void vmx_vpid_request_flush_guest(struct kvm_vcpu *vcpu);
bool vmx_vpid_fail_valid(struct kvm_vcpu *vcpu, u32 error);

/* tlbstate.c; asm/tlbflush.h hides the types from modules. */
struct tlb_state;
struct tlb_state_shared;
struct flush_tlb_info;

struct vmx_vpid_asid_features {
	bool pcid;
	bool pti;
	bool invpcid;
	bool invlpgb;
};

/* A snapshot of an address space. */
struct vmx_vpid_mm {
	u64 ctx_id;
	u64 tlb_gen;
	u64 root;	/* CR3 without the PCID */
};

void vmx_vpid_asid_features(struct vmx_vpid_asid_features *features);
const struct tlb_state *vmx_vpid_tlb_state(void);
const struct tlb_state_shared *vmx_vpid_tlb_state_shared(void);
void vmx_vpid_read_mm(struct mm_struct *from, struct vmx_vpid_mm *to);
int vmx_vpid_asid_follow(void *to);
void vmx_vpid_asid_unfollow(void);

/* Events of the CPUs, reported to kvm/tlbstate.rs. */
void vmx_vpid_asid_switching(void *follower, struct mm_struct *next);
void vmx_vpid_asid_switched(void *follower, u64 cr3, u64 pages);
void vmx_vpid_asid_flushing(void *follower, const struct flush_tlb_info *info);
void vmx_vpid_asid_flushed(void *follower, u64 cr3, u64 pages);

#endif /* VMX_VPID_H */
