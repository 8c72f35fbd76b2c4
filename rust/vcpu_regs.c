// SPDX-License-Identifier: GPL-2.0
/*
 * This file accesses a guest's memory for kvm/vcpu_regs.rs, and wraps inline functions
 * of KVM.  This file decides nothing; exits/ does.
 */
#include <linux/kvm_host.h>
#include <linux/uaccess.h>
#include "vmx/hyperv.h"
#include "vmx/nested.h"
#include "vmx_vpid.h"

/*
 * Look up the memslot of a guest-physical address.
 *
 * While L2 runs on an EPT of L1's, a guest-physical address is L2's, and only KVM can
 * translate it to L1's.  No instruction that is emulated here exits in that state; if
 * one did, this function would find no memory.
 */
static struct kvm_memory_slot *find_slot(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	if (mmu_is_nested(vcpu))
		return NULL;

	return vmx_vpid_call_kvm_vcpu_gfn_to_memslot(vcpu, gpa_to_gfn(gpa));
}

static void set_window(struct vmx_vpid_window *window, struct kvm_memory_slot *slot)
{
	window->slot = slot;
	window->gpa = gfn_to_gpa(slot->base_gfn);
	window->size = slot->npages << PAGE_SHIFT;
	window->user = (void __user *)slot->userspace_addr;
}

/*
 * Look up the memslot of a guest-physical address, and remember the memslot.  As in
 * walk_addr_generic(), no page table is in an internal memslot, so no window is one.
 */
static noinline bool open_window(struct kvm_vcpu *vcpu, struct vmx_vpid_window *window,
				 gpa_t gpa)
{
	struct kvm_memory_slot *slot = find_slot(vcpu, gpa);

	if (!kvm_is_visible_memslot(slot))
		return false;

	set_window(window, slot);
	return true;
}

/* Return whether a guest-physical address is in the memslot of the last look-up. */
static __always_inline bool is_in_window(const struct vmx_vpid_window *window, gpa_t gpa)
{
	return likely(gpa - window->gpa < window->size);
}

/*
 * Return the user address of a guest-physical address.  No access calls access_ok():
 * KVM called it when user space set the memslot, and a vCPU runs in the address space
 * of its VM alone.  A CPU that speculates past the comparison with the memslot's size
 * nevertheless stays within the memslot.
 */
static __always_inline void __user *user_address(const struct vmx_vpid_window *window,
						 gpa_t gpa)
{
	return window->user + array_index_nospec(gpa - window->gpa, window->size);
}

static __always_inline struct vmx_vpid_entry read_entry(const struct vmx_vpid_window *window,
							gpa_t gpa, bool wide)
{
	void __user *from = user_address(window, gpa);
	struct vmx_vpid_entry entry = { .present = true };

	__uaccess_begin_nospec();
	if (likely(wide))
		unsafe_get_user(entry.value, (u64 __user *)from, fault);
	else
		unsafe_get_user(entry.value, (u32 __user *)from, fault);
	__uaccess_end();
	return entry;

fault:
	__uaccess_end();
	return (struct vmx_vpid_entry){};
}

static noinline struct vmx_vpid_entry find_and_read_entry(struct kvm_vcpu *vcpu,
							  struct vmx_vpid_window *window,
							  gpa_t gpa, bool wide)
{
	if (!open_window(vcpu, window, gpa))
		return (struct vmx_vpid_entry){};

	return read_entry(window, gpa, wide);
}

/**
 * vmx_vpid_guest_read_entry - read an entry of a guest's page table
 * @vcpu: the vCPU, loaded, in the handler of an exit
 * @window: the memslot of the last access, all zeroes for the first
 * @gpa: guest-physical address, aligned
 * @wide: the entry has 8 bytes, not 4
 *
 * KVM holds kvm->srcu while the exit is handled, so the memslot stays valid.  A walk
 * through page tables in one memslot thus looks up the memslot once.  Each level of
 * every walk calls this function, which saves and spills no register.
 *
 * Return: the entry, if there is memory.
 */
struct vmx_vpid_entry vmx_vpid_guest_read_entry(struct kvm_vcpu *vcpu,
						struct vmx_vpid_window *window,
						gpa_t gpa, bool wide)
{
	if (!is_in_window(window, gpa))
		return find_and_read_entry(vcpu, window, gpa, wide);

	return read_entry(window, gpa, wide);
}

/*
 * Read guest memory outside the window.  Like kvm_vcpu_read_guest_page(), this function
 * also reads internal memslots, which the window must not remember: a later walk would
 * find page tables there.
 */
static noinline int find_and_read(struct kvm_vcpu *vcpu, struct vmx_vpid_window *window,
				  gpa_t gpa, void *data, unsigned long len)
{
	struct kvm_memory_slot *slot = find_slot(vcpu, gpa);
	struct vmx_vpid_window internal;

	if (!slot || slot->flags & KVM_MEMSLOT_INVALID)
		return -ENOENT;

	if (!kvm_is_visible_memslot(slot))
		window = &internal;
	set_window(window, slot);
	return copy_from_user(data, user_address(window, gpa), len) ? -EFAULT : 0;
}

/**
 * vmx_vpid_guest_read - read guest memory
 * @vcpu: the vCPU, loaded, in the handler of an exit
 * @window: as for vmx_vpid_guest_read_entry()
 * @gpa: guest-physical address
 * @data: the buffer to fill
 * @len: number of bytes, which do not cross a page
 *
 * Return: 0; -ENOENT if the guest has no memory there; -EFAULT if user space has
 * unmapped the memory.
 */
int vmx_vpid_guest_read(struct kvm_vcpu *vcpu, struct vmx_vpid_window *window, gpa_t gpa,
			void *data, unsigned long len)
{
	void __user *from;
	u64 words[2];

	if (!is_in_window(window, gpa))
		return find_and_read(vcpu, window, gpa, data, len);

	from = user_address(window, gpa);
	if (unlikely(len != 16))
		return copy_from_user(data, from, len) ? -EFAULT : 0;

	/* The descriptor of an instruction, if it does not cross the end of a page. */
	__uaccess_begin_nospec();
	unsafe_get_user(words[0], (u64 __user *)from, fault);
	unsafe_get_user(words[1], (u64 __user *)from + 1, fault);
	__uaccess_end();
	memcpy(data, words, sizeof(words));
	return 0;

fault:
	__uaccess_end();
	return -EFAULT;
}

/**
 * vmx_vpid_guest_exchange_entry - replace an entry of a guest's page table
 * @vcpu: the vCPU, loaded, in the handler of an exit
 * @window: as for vmx_vpid_guest_read_entry()
 * @gpa: guest-physical address, aligned
 * @wide: the entry has 8 bytes, not 4
 * @old: the value that the entry must have
 * @new: the value to write
 *
 * Return: 0; -EAGAIN if the entry was not @old; -EROFS if the memory is read-only;
 * -EFAULT if there is no memory.
 */
int vmx_vpid_guest_exchange_entry(struct kvm_vcpu *vcpu, struct vmx_vpid_window *window,
				  gpa_t gpa, bool wide, u64 old, u64 new)
{
	void __user *at;
	int ret;

	if (!is_in_window(window, gpa) && !open_window(vcpu, window, gpa))
		return -EFAULT;
	if (window->slot->flags & KVM_MEM_READONLY)
		return -EROFS;

	at = user_address(window, gpa);
	if (wide) {
		ret = __try_cmpxchg_user((u64 __user *)at, &old, new, wide_fault);
	} else {
		u32 old32 = old, new32 = new;

		ret = __try_cmpxchg_user((u32 __user *)at, &old32, new32, narrow_fault);
	}
	if (ret < 0)
		return -EFAULT;
	if (ret > 0)
		return -EAGAIN;

	vmx_vpid_call_mark_page_dirty_in_slot(vcpu->kvm, window->slot, gpa_to_gfn(gpa));
	return 0;
}

/**
 * vmx_vpid_raise - raise an exception other than a page fault in the guest
 * @vcpu: the vCPU, loaded, in the handler of an exit
 * @vector: #UD, #SS or #GP; the error code of #SS and #GP is 0
 */
void vmx_vpid_raise(struct kvm_vcpu *vcpu, unsigned int vector)
{
	if (vector == UD_VECTOR)
		vmx_vpid_call_kvm_queue_exception(vcpu, vector);
	else
		vmx_vpid_call_kvm_queue_exception_e(vcpu, vector, 0);
}

/**
 * vmx_vpid_raise_page_fault - raise a page fault in the guest
 * @vcpu: the vCPU, loaded, in the handler of an exit
 * @address: the linear address, for CR2
 * @error_code: as the CPU would push it
 */
void vmx_vpid_raise_page_fault(struct kvm_vcpu *vcpu, gva_t address, u32 error_code)
{
	struct x86_exception fault = {
		.vector = PF_VECTOR,
		.error_code_valid = true,
		.error_code = error_code,
		.address = address,
	};

	vmx_vpid_call___kvm_inject_emulated_page_fault(vcpu, &fault, false);
}

/**
 * vmx_vpid_request_sync - request that KVM synchronises and flushes the current root
 * @vcpu: the vCPU, loaded, in the handler of an exit
 */
void vmx_vpid_request_sync(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_MMU_SYNC, vcpu);
	kvm_make_request(KVM_REQ_TLB_FLUSH_CURRENT, vcpu);
}

/**
 * vmx_vpid_request_flush_guest - request a flush of what the guest may have cached
 * @vcpu: the vCPU, loaded, in the handler of an exit
 */
void vmx_vpid_request_flush_guest(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_TLB_FLUSH_GUEST, vcpu);
}

/**
 * vmx_vpid_fail_valid - write the VM-instruction error into L1's current VMCS
 * @vcpu: the vCPU, loaded, in the handler of an exit of L1
 * @error: the number
 *
 * An enlightened VMCS is in L1's memory, and KVM writes it on the way back to L1.
 *
 * Return: false if L1 has no current VMCS.
 */
bool vmx_vpid_fail_valid(struct kvm_vcpu *vcpu, u32 error)
{
	struct vcpu_vmx *vmx = to_vmx(vcpu);

	if (vmx->nested.current_vmptr == INVALID_GPA && !nested_vmx_is_evmptr12_valid(vmx))
		return false;

	get_vmcs12(vcpu)->vm_instruction_error = error;
	if (nested_vmx_is_evmptr12_set(vmx))
		vmx->nested.need_vmcs12_to_shadow_sync = true;

	return true;
}
