// SPDX-License-Identifier: GPL-2.0

//! This module implements the protocol of attach and detach: phases, and the action for each
//! callback.
//!
//! Livepatch reports each step by a callback.  A transition may be reversed in the middle, and
//! kvm_intel may be loaded or unloaded at any time.  Every step is idempotent.
//! Documentation/attach.rst, "Callbacks and phases", lists the callbacks of each event.

/// A phase of attach and detach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// C serves, or kvm_intel is not loaded.  The module may not access data of kvm_intel.
    Detached,
    /// Some tasks run C, some Rust, on the way to Rust.
    Attaching,
    /// Every task runs Rust.
    Attached,
    /// Some tasks run C, some Rust, on the way to C.
    Detaching,
}

/// A callback of livepatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    /// Livepatch is about to replace the functions, for each task that reaches a safe point.
    PrePatch,
    /// No task runs the replaced functions any more.
    PostPatch,
    /// Livepatch is about to restore the functions.
    PreUnpatch,
    /// No task runs the Rust functions any more.
    PostUnpatch,
}

/// The direction in which the VPIDs in use are copied, under KVM's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// No copy: the active allocator stays the same.
    None,
    /// From KVM's bitmap to the pool.
    Import,
    /// From the pool to KVM's bitmap.
    Export,
}

impl Phase {
    /// Handles a callback: returns the next phase, and the direction in which VPIDs are copied.
    ///
    /// KVM's bitmap is the active allocator in every phase but [`Phase::Attached`], so C and Rust
    /// may serve at once in the other phases.
    pub(crate) fn on(self, callback: Callback) -> (Self, Transfer) {
        match (self, callback) {
            (Self::Attached, Callback::PrePatch | Callback::PostPatch) => {
                (Self::Attached, Transfer::None)
            }
            (_, Callback::PrePatch) => (Self::Attaching, Transfer::None),
            (_, Callback::PostPatch) => (Self::Attached, Transfer::Import),
            (Self::Attached, Callback::PreUnpatch) => (Self::Detaching, Transfer::Export),
            (Self::Detached, Callback::PreUnpatch) => (Self::Detached, Transfer::None),
            (_, Callback::PreUnpatch) => (Self::Detaching, Transfer::None),
            // Livepatch calls pre_unpatch first whenever it leaves the patched state.  Without that
            // call, this arm exports the VPIDs.
            (Self::Attached, Callback::PostUnpatch) => (Self::Detached, Transfer::Export),
            (_, Callback::PostUnpatch) => (Self::Detached, Transfer::None),
        }
    }

    /// Returns the phase's name as debugfs shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_phase)]
mod tests {
    use super::{
        Callback::*,
        Phase::*,
        *, //
    };

    /// Runs callbacks from a phase; returns the last phase and whether the pool is active there, or
    /// `None` if the set was copied from the inactive allocator.
    fn run(from: Phase, callbacks: &[Callback]) -> Option<(Phase, bool)> {
        let mut phase = from;
        let mut pool_active = from == Attached;
        for &callback in callbacks {
            let (next, transfer) = phase.on(callback);
            pool_active = match (transfer, pool_active) {
                (Transfer::None, active) => active,
                (Transfer::Import, false) => true,
                (Transfer::Export, true) => false,
                _ => return None,
            };
            phase = next;
        }
        Some((phase, pool_active))
    }

    #[test]
    fn each_event_ends_in_its_phase() {
        let rows: [(Phase, &[Callback], Phase); 8] = [
            (Detached, &[PrePatch, PostPatch], Attached),
            (Detached, &[PrePatch, PostUnpatch], Detached),
            (Attached, &[PreUnpatch, PostUnpatch], Detached),
            (Attached, &[PreUnpatch, PostPatch], Attached),
            (Detached, &[PrePatch], Attaching),
            (Attaching, &[PostUnpatch], Detached),
            (Detaching, &[PostUnpatch], Detached),
            (
                Attached,
                &[PreUnpatch, PostUnpatch, PrePatch, PostPatch],
                Attached,
            ),
        ];
        for (from, callbacks, to) in rows {
            assert_eq!(run(from, callbacks), Some((to, to == Attached)));
        }
    }

    #[test]
    fn any_sequence_keeps_one_allocator_active() {
        let all = [PrePatch, PostPatch, PreUnpatch, PostUnpatch];
        // Tries every sequence of six callbacks, possible or not: the base-4 digits of a counter.
        for code in 0..4096usize {
            let sequence: [Callback; 6] = core::array::from_fn(|i| all[code >> (2 * i) & 3]);
            let end = run(Detached, &sequence);
            assert!(end.is_some_and(|(phase, pool_active)| pool_active == (phase == Attached)));
        }
    }

    #[test]
    fn callbacks_are_idempotent() {
        for phase in [Detached, Attaching, Attached, Detaching] {
            for callback in [PrePatch, PostPatch, PreUnpatch, PostUnpatch] {
                let (once, _) = phase.on(callback);
                assert_eq!(once.on(callback), (once, Transfer::None));
            }
        }
    }
}
