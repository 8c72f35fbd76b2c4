// SPDX-License-Identifier: GPL-2.0

//! This module lists the backend's counters, under the names that debugfs shows.
//!
//! The names are an interface that scripts read: new ones may be added, and none changes.  The
//! counters count the work of the *backend*; Documentation/flush.rst lists the flushes that KVM's C
//! code issues on its own.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A counter; the value is its place in the per-CPU array.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(crate) enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// Every counter, in the order in which they are shown.
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
    /// Instructions that raised a fault.
    InsnFault = "insn_fault",
    /// Flushes of which even the widest form failed.
    FlushLost = "flush_lost",
    /// Requests answered by no instruction, since nothing can have been cached.
    FlushSkipped = "flush_skipped",
    /// Requests answered by an instruction that covers more than they are about, and instructions
    /// that failed and were answered by wider ones.
    FlushWidened = "flush_widened",
    /// VPIDs given out.
    VpidAcquired = "vpid_acquired",
    /// VPIDs taken back.
    VpidReleased = "vpid_released",
    /// Requests for a VPID when all were in use.
    VpidExhausted = "vpid_exhausted",
    /// Requests for a VPID when kvm_intel runs without.
    VpidOff = "vpid_off",
    /// Releases of a VPID that was not in use, or of a number that is none.
    VpidNotHeld = "vpid_not_held",
    /// Exits for INVLPG.
    ExitInvlpg = "exit_invlpg",
    /// Exits for INVPCID.
    ExitInvpcid = "exit_invpcid",
    /// Exits for INVVPID.
    ExitInvvpid = "exit_invvpid",
    /// Exits for INVEPT.
    ExitInvept = "exit_invept",
    /// INVPCID of type 0 carried out for a guest.
    GuestInvpcidAddress = "guest_invpcid_address",
    /// INVPCID of type 1 carried out for a guest.
    GuestInvpcidContext = "guest_invpcid_context",
    /// INVPCID of type 2 carried out for a guest.
    GuestInvpcidAllAndGlobals = "guest_invpcid_all_and_globals",
    /// INVPCID of type 3 carried out for a guest.
    GuestInvpcidAll = "guest_invpcid_all",
    /// INVVPID of type 0 carried out for a guest.
    GuestInvvpidAddress = "guest_invvpid_address",
    /// INVVPID of type 1 carried out for a guest.
    GuestInvvpidContext = "guest_invvpid_context",
    /// INVVPID of type 2 carried out for a guest.
    GuestInvvpidAll = "guest_invvpid_all",
    /// INVVPID of type 3 carried out for a guest.
    GuestInvvpidRetainGlobals = "guest_invvpid_retain_globals",
    /// INVEPT of type 1 carried out for a guest.
    GuestInveptContext = "guest_invept_context",
    /// INVEPT of type 2 carried out for a guest.
    GuestInveptAll = "guest_invept_all",
    /// Instructions of a guest's that ended in VM-fail.
    GuestVmFail = "guest_vmfail",
    /// #UD raised in a guest.
    FaultInvalidOpcode = "fault_ud",
    /// #GP raised in a guest.
    FaultGeneralProtection = "fault_gp",
    /// #SS raised in a guest.
    FaultStack = "fault_ss",
    /// #PF raised in a guest.
    FaultPage = "fault_pf",
    /// Instructions that the guest was made to execute again, since its page tables kept changing.
    ExitRetry = "exit_retry",
    /// Instructions that ended in an error for user space, which took away the memory of the
    /// operand.
    ExitHostFailure = "exit_host_failure",
    /// EPT violations of reads, where an entry was not present.
    ViolationReadNotPresent = "violation_read_not_present",
    /// EPT violations of reads that the entries do not permit.
    ViolationReadPermission = "violation_read_permission",
    /// EPT violations of writes, where an entry was not present.
    ViolationWriteNotPresent = "violation_write_not_present",
    /// EPT violations of writes that the entries do not permit.
    ViolationWritePermission = "violation_write_permission",
    /// EPT violations of fetches, where an entry was not present.
    ViolationFetchNotPresent = "violation_fetch_not_present",
    /// EPT violations of fetches that the entries do not permit.
    ViolationFetchPermission = "violation_fetch_permission",
    /// EPT violations on the walk through the guest's page tables, where an entry was not present.
    ViolationWalkNotPresent = "violation_walk_not_present",
    /// EPT violations on the walk through the guest's page tables, where entries do not permit it.
    ViolationWalkPermission = "violation_walk_permission",
    /// EPT misconfigurations that were writes to a device that only needs a notification.
    MmioFast = "mmio_fast",
    /// EPT misconfigurations that KVM's fault handler served.
    MmioSlow = "mmio_slow",
    /// EPT misconfigurations of an instruction that cannot be emulated where it is.
    MmioRefused = "mmio_refused",
}

impl Counter {
    /// The number of counters.
    pub(crate) const COUNT: usize = Self::ALL.len();
}

/// The counters of EPT violations: for a read, a write, a fetch and an access to the guest's page
/// tables, where an entry was not present, and where they were.
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

/// Sums of counters that debugfs shows beside them, so that a sum needs no counter of its own.
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
    // Calls of `free_vpid`, those with VPID 0 aside.
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
    // Invalidations of all contexts, each of which empties what other VMs have cached on its CPU.
    (
        "flush_collateral",
        &[Counter::InvvpidAll, Counter::InveptAll],
    ),
];
