// SPDX-License-Identifier: GPL-2.0

//! What the backend counts, under the names that debugfs shows.
//!
//! The names are an interface: scripts read them, so they are added to and never changed.  The
//! counters count what the *backend* did; flushes that KVM's C code issues on its own are listed
//! in Documentation/design.rst.

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
    /// Calls of `allocate_vpid`.
    AllocateVpid = "op_allocate_vpid",
    /// Calls of `free_vpid`, those with VPID 0 aside.
    FreeVpid = "op_free_vpid",
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
    /// VPIDs given out.
    VpidAcquired = "vpid_acquired",
    /// VPIDs taken back.
    VpidReleased = "vpid_released",
    /// Requests for a VPID when all were in use.
    VpidExhausted = "vpid_exhausted",
    /// Releases of a VPID that was not in use, or of a number that is none.
    VpidNotHeld = "vpid_not_held",
}

impl Counter {
    /// How many counters there are.
    pub(crate) const COUNT: usize = Self::ALL.len();
}
