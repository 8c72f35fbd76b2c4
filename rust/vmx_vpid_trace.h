/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header defines the tracepoints of vmx_vpid: events/vmx_vpid/ in tracefs.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vmx_vpid

#if !defined(VMX_VPID_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VMX_VPID_TRACE_H

#include <linux/tracepoint.h>

/* The reason for an invalidation: a request of KVM, or an INVVPID of L1. */
#define VMX_VPID_REASONS			\
	{ 0, "all" },				\
	{ 1, "current" },			\
	{ 2, "gva" },				\
	{ 3, "guest" },				\
	{ 4, "l1" }

TRACE_EVENT(vmx_vpid_acquire,
	TP_PROTO(u16 vpid),
	TP_ARGS(vpid),
	TP_STRUCT__entry(
		__field(u16, vpid)
	),
	TP_fast_assign(
		__entry->vpid = vpid;
	),
	/* 0: all VPIDs were in use. */
	TP_printk("vpid %u", __entry->vpid)
);

TRACE_EVENT(vmx_vpid_release,
	TP_PROTO(u16 vpid, bool held),
	TP_ARGS(vpid, held),
	TP_STRUCT__entry(
		__field(u16, vpid)
		__field(bool, held)
	),
	TP_fast_assign(
		__entry->vpid = vpid;
		__entry->held = held;
	),
	TP_printk("vpid %u%s", __entry->vpid, __entry->held ? "" : " was not in use")
);

TRACE_EVENT(vmx_vpid_invvpid,
	TP_PROTO(u8 extent, u16 vpid, u64 address, u8 reason),
	TP_ARGS(extent, vpid, address, reason),
	TP_STRUCT__entry(
		__field(u8, extent)
		__field(u16, vpid)
		__field(u64, address)
		__field(u8, reason)
	),
	TP_fast_assign(
		__entry->extent = extent;
		__entry->vpid = vpid;
		__entry->address = address;
		__entry->reason = reason;
	),
	TP_printk("vpid %u extent %s address 0x%llx reason %s", __entry->vpid,
		__print_symbolic(__entry->extent,
			{ 0, "address" }, { 1, "context" }, { 2, "all" }),
		__entry->address, __print_symbolic(__entry->reason, VMX_VPID_REASONS))
);

TRACE_EVENT(vmx_vpid_invept,
	TP_PROTO(u8 extent, u64 eptp, u8 reason),
	TP_ARGS(extent, eptp, reason),
	TP_STRUCT__entry(
		__field(u8, extent)
		__field(u64, eptp)
		__field(u8, reason)
	),
	TP_fast_assign(
		__entry->extent = extent;
		__entry->eptp = eptp;
		__entry->reason = reason;
	),
	TP_printk("eptp 0x%llx extent %s reason %s", __entry->eptp,
		__print_symbolic(__entry->extent, { 1, "context" }, { 2, "all" }),
		__print_symbolic(__entry->reason, VMX_VPID_REASONS))
);

DECLARE_EVENT_CLASS(vmx_vpid_transition,
	TP_PROTO(u32 vpids),
	TP_ARGS(vpids),
	TP_STRUCT__entry(
		__field(u32, vpids)
	),
	TP_fast_assign(
		__entry->vpids = vpids;
	),
	TP_printk("vpids %u", __entry->vpids)
);

/* Every task runs the backend; @vpids VPIDs are in use. */
DEFINE_EVENT(vmx_vpid_transition, vmx_vpid_attach,
	TP_PROTO(u32 vpids),
	TP_ARGS(vpids)
);

/* C serves again, or is about to; @vpids VPIDs are in use. */
DEFINE_EVENT(vmx_vpid_transition, vmx_vpid_detach,
	TP_PROTO(u32 vpids),
	TP_ARGS(vpids)
);

#endif /* VMX_VPID_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE vmx_vpid_trace
#include <trace/define_trace.h>
