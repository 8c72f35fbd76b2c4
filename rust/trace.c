// SPDX-License-Identifier: GPL-2.0
/*
 * This file defines the tracepoints, and has a function that emits each of them, and
 * each tracepoint of KVM that Rust emits in place of C.
 *
 * Rust tests a tracepoint's static key itself, and calls these functions only if the
 * tracepoint is on (kvm/trace.rs): a tracepoint that is off is one NOP there.
 */
#include "vmx_vpid.h"

#define CREATE_TRACE_POINTS
#include "vmx_vpid_trace.h"

void vmx_vpid_emit_acquire(u16 vpid)
{
	trace_vmx_vpid_acquire(vpid);
}

void vmx_vpid_emit_release(u16 vpid, bool held)
{
	trace_vmx_vpid_release(vpid, held);
}

void vmx_vpid_emit_invvpid(u8 extent, u16 vpid, u64 address, u8 reason)
{
	trace_vmx_vpid_invvpid(extent, vpid, address, reason);
}

void vmx_vpid_emit_invept(u8 extent, u64 eptp, u8 reason)
{
	trace_vmx_vpid_invept(extent, eptp, reason);
}

void vmx_vpid_emit_attach(u32 vpids)
{
	trace_vmx_vpid_attach(vpids);
}

void vmx_vpid_emit_detach(u32 vpids)
{
	trace_vmx_vpid_detach(vpids);
}

/*
 * KVM's tracepoints belong to kvm.ko: this module can use neither their static keys nor
 * their static calls.  So Rust reads the key, and the function that walks the list of
 * probes calls the probes.
 */
void vmx_vpid_emit_kvm_page_fault(struct kvm_vcpu *vcpu, u64 address, u64 error_code)
{
	guard(srcu_fast_notrace)(&tracepoint_srcu);
	vmx_vpid_call___traceiter_kvm_page_fault(NULL, vcpu, address, error_code);
}

void vmx_vpid_emit_kvm_fast_mmio(u64 gpa)
{
	guard(srcu_fast_notrace)(&tracepoint_srcu);
	vmx_vpid_call___traceiter_kvm_fast_mmio(NULL, gpa);
}
