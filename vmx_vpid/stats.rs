// SPDX-License-Identifier: GPL-2.0

//! This module lists the backend's counters, under the names that debugfs shows.
//!
//! Scripts read the names: new names may be added, and no name changes.  The counters count the
//! work of the *backend*; Documentation/flush.rst lists the flushes that KVM's C code issues on its
//! own.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A counter; the value is its index in the per-CPU array.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(crate) enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// Every counter, in the order in which debugfs shows them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the counter's stable name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

counters! {
    /// Calls of `flush_tlb_all`.
    FlushTlbAll = "op_flush_tlb_all",
    /// Calls of `flush_tlb_current`.
    FlushTlbCurrent = "op_flush_tlb_current",
    /// Calls of `flush_tlb_gva`.
    FlushTlbGva = "op_flush_tlb_gva",
    /// Calls of `flush_tlb_guest`.
    FlushTlbGuest = "op_flush_tlb_guest",
    /// INVVPID of type 0 issued.
    InvvpidAddress = "invvpid_address",
    /// INVVPID of type 1 issued.
    InvvpidContext = "invvpid_context",
    /// INVVPID of type 2 issued.
    InvvpidAll = "invvpid_all",
    /// INVEPT of type 1 issued.
    InveptContext = "invept_context",
    /// INVEPT of type 2 issued.
    InveptAll = "invept_all",
    /// Instructions that ended in VM-fail.
    InsnVmFail = "insn_vmfail",
    /// Instructions that raised an exception.
    InsnFault = "insn_fault",
    /// Flushes whose widest instruction failed too.
    FlushLost = "flush_lost",
    /// Requests that needed no instruction, since no translation can be cached.
    FlushSkipped = "flush_skipped",
    /// Requests served by an instruction that covers more than the request, and failed instructions
    /// that a wider one replaced.
    FlushWidened = "flush_widened",
    /// VPIDs allocated.
    VpidAcquired = "vpid_acquired",
    /// VPIDs freed.
    VpidReleased = "vpid_released",
    /// Allocations that failed, since all VPIDs were in use.
    VpidExhausted = "vpid_exhausted",
    /// Allocations that failed, since kvm_intel runs without VPIDs.
    VpidOff = "vpid_off",
    /// Frees of a VPID that was not in use, or of a number that is no VPID.
    VpidNotHeld = "vpid_not_held",
    /// Exits for INVLPG.
    ExitInvlpg = "exit_invlpg",
    /// Exits for INVPCID.
    ExitInvpcid = "exit_invpcid",
    /// Exits for INVVPID.
    ExitInvvpid = "exit_invvpid",
    /// Exits for INVEPT.
    ExitInvept = "exit_invept",
    /// INVPCID of type 0 executed for a guest.
    GuestInvpcidAddress = "guest_invpcid_address",
    /// INVPCID of type 1 executed for a guest.
    GuestInvpcidContext = "guest_invpcid_context",
    /// INVPCID of type 2 executed for a guest.
    GuestInvpcidAllAndGlobals = "guest_invpcid_all_and_globals",
    /// INVPCID of type 3 executed for a guest.
    GuestInvpcidAll = "guest_invpcid_all",
    /// INVVPID of type 0 executed for a guest.
    GuestInvvpidAddress = "guest_invvpid_address",
    /// INVVPID of type 1 executed for a guest.
    GuestInvvpidContext = "guest_invvpid_context",
    /// INVVPID of type 2 executed for a guest.
    GuestInvvpidAll = "guest_invvpid_all",
    /// INVVPID of type 3 executed for a guest.
    GuestInvvpidRetainGlobals = "guest_invvpid_retain_globals",
    /// INVEPT of type 1 executed for a guest.
    GuestInveptContext = "guest_invept_context",
    /// INVEPT of type 2 executed for a guest.
    GuestInveptAll = "guest_invept_all",
    /// Instructions of a guest that ended in VM-fail.
    GuestVmFail = "guest_vmfail",
    /// #UD raised in a guest.
    FaultInvalidOpcode = "fault_ud",
    /// #GP raised in a guest.
    FaultGeneralProtection = "fault_gp",
    /// #SS raised in a guest.
    FaultStack = "fault_ss",
    /// #PF raised in a guest.
    FaultPage = "fault_pf",
    /// Instructions that the guest executes again, since its page tables kept changing.
    ExitRetry = "exit_retry",
    /// Instructions that ended in an error for user space, since the host could not read the
    /// operand.
    ExitHostFailure = "exit_host_failure",
    /// EPT violations of reads, with an entry that was not present.
    ViolationReadNotPresent = "violation_read_not_present",
    /// EPT violations of reads that the entries do not permit.
    ViolationReadPermission = "violation_read_permission",
    /// EPT violations of writes, with an entry that was not present.
    ViolationWriteNotPresent = "violation_write_not_present",
    /// EPT violations of writes that the entries do not permit.
    ViolationWritePermission = "violation_write_permission",
    /// EPT violations of fetches, with an entry that was not present.
    ViolationFetchNotPresent = "violation_fetch_not_present",
    /// EPT violations of fetches that the entries do not permit.
    ViolationFetchPermission = "violation_fetch_permission",
    /// EPT violations of the walk of the guest's page tables, with an entry that was not present.
    ViolationWalkNotPresent = "violation_walk_not_present",
    /// EPT violations of the walk of the guest's page tables that the entries do not permit.
    ViolationWalkPermission = "violation_walk_permission",
    /// EPT misconfigurations for a write to a device that only needs a notification.
    MmioFast = "mmio_fast",
    /// EPT misconfigurations that KVM's fault handler served.
    MmioSlow = "mmio_slow",
    /// EPT misconfigurations for an instruction that must not be emulated.
    MmioRefused = "mmio_refused",
}

impl Counter {
    /// The number of counters.
    pub(crate) const COUNT: usize = Self::ALL.len();
}

/// The counters of EPT violations, for a read, a write, a fetch and the walk of the guest's page
/// tables; each with an entry that was not present, and with all entries present.
pub(crate) const VIOLATIONS: [Counter; 8] = [
    Counter::ViolationReadNotPresent,
    Counter::ViolationReadPermission,
    Counter::ViolationWriteNotPresent,
    Counter::ViolationWritePermission,
    Counter::ViolationFetchNotPresent,
    Counter::ViolationFetchPermission,
    Counter::ViolationWalkNotPresent,
    Counter::ViolationWalkPermission,
];

/// Sums of counters that debugfs shows beside the counters, so that a sum needs no counter of its
/// own.
pub(crate) const SUMS: &[(&str, &[Counter])] = &[
    // Calls of `allocate_vpid`.
    (
        "op_allocate_vpid",
        &[
            Counter::VpidAcquired,
            Counter::VpidExhausted,
            Counter::VpidOff,
        ],
    ),
    // Calls of `free_vpid`, except with VPID 0.
    (
        "op_free_vpid",
        &[Counter::VpidReleased, Counter::VpidNotHeld],
    ),
    // Exits for EPT violations.
    ("exit_ept_violation", &VIOLATIONS),
    // Exits for EPT misconfigurations.
    (
        "exit_ept_misconfig",
        &[Counter::MmioFast, Counter::MmioSlow, Counter::MmioRefused],
    ),
    // Invalidations of all contexts, each of which drops what other VMs have cached on the CPU.
    (
        "flush_collateral",
        &[Counter::InvvpidAll, Counter::InveptAll],
    ),
];
