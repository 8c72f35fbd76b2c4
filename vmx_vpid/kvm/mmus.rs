// SPDX-License-Identifier: GPL-2.0

//! This module reads from KVM's structures which MMU translates each vCPU's addresses.

use crate::{
    bindings,
    kvm::symbols,
    mmu::{
        Choice,
        Mmu,
        Seen,
        Setup, //
    }, //
};
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// The number of reads before a difference is shown.
///
/// If a vCPU enters or leaves L2 during a read, the result has one half of each state.  The next
/// read then agrees.
const TRIES: u32 = 4;

/// The pause between two reads.
const PAUSE: Delta = Delta::from_millis(2);

/// Bits 11:0 of CR3, if CR4.PCIDE is set.
const PCID: u64 = 0xfff;

/// A root that KVM keeps.
#[derive(Clone, Copy)]
pub(crate) struct Root {
    /// The host-physical address of the root's table; `None` for the dummy root, which KVM uses if
    /// the guest has no memory where the guest's own table should be.
    pub(crate) hpa: Option<u64>,
    /// The guest's CR3, or L1's EPT pointer, that the root was made for; `None` for direct tables,
    /// which KVM makes from memslots alone.
    pub(crate) pgd: Option<u64>,
    /// The PCID in `pgd`, if `pgd` is a CR3 and the guest uses PCIDs.
    pub(crate) pcid: Option<u64>,
}

/// The MMU of a vCPU, and the roots that KVM keeps for it.
pub(crate) struct Line(bindings::vmx_vpid_mmu);

impl Line {
    /// Returns the PID of the process that created the VM, and the vCPU's number in the VM.
    pub(crate) fn owner(&self) -> (i32, i32) {
        (self.0.pid, self.0.vcpu)
    }

    /// Returns whether the vCPU runs L2.
    pub(crate) fn is_in_l2(&self) -> bool {
        self.0.l2
    }

    /// Returns the MMU that KVM has to use with the vCPU's setup.
    ///
    /// # Safety
    ///
    /// kvm_intel's symbols are resolved.
    unsafe fn choice(&self) -> Choice {
        Choice::of(Setup {
            // SAFETY: By the safety requirements the symbols are resolved.
            ept: unsafe { symbols::enable_ept_by_now() },
            l2: self.0.l2,
            ept12: self.0.ept12,
            levels: self.0.levels,
        })
    }

    /// Returns the MMU that KVM has set up for the vCPU.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            guest_mmu: self.0.guest_mmu,
            ngpa_walk: self.0.ngpa_walk,
            direct: self.0.direct,
            guest_mode: self.0.guest_mode,
            level: self.0.level,
        }
    }

    /// Converts a root of the set in use from C; returns `None` if C's root is not valid.
    fn root_of(&self, raw: &bindings::vmx_vpid_root) -> Option<Root> {
        if !raw.valid {
            return None;
        }
        let pgd = (!self.0.direct).then_some(raw.pgd);
        let has_pcid = self.0.pcids && self.seen().mmu().is_some_and(Mmu::is_shadow);
        Some(Root {
            hpa: (!raw.dummy).then_some(raw.hpa),
            pgd,
            pcid: pgd.filter(|_| has_pcid).map(|pgd| pgd & PCID),
        })
    }

    /// Returns the current root; `None` if there is none, as before the vCPU runs for the first
    /// time.
    pub(crate) fn root(&self) -> Option<Root> {
        self.root_of(&self.0.root)
    }

    /// Returns the cached roots, the most recently used first.
    pub(crate) fn previous(&self) -> impl Iterator<Item = Root> + '_ {
        self.0.prev.iter().filter_map(|raw| self.root_of(raw))
    }

    /// Returns the address of the current root of the set that is not in use; `None` if that set
    /// has no root or the dummy root.
    pub(crate) fn other(&self) -> Option<u64> {
        let other = &self.0.other;
        (other.valid && !other.dummy).then_some(other.hpa)
    }
}

/// A line for each vCPU, with the MMU that KVM has to use for it.
pub(crate) type Lines = KVVec<(Line, Choice)>;

/// Returns the MMU and the roots of each vCPU, with the MMU that KVM has to use.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
pub(super) unsafe fn lines() -> Result<Lines> {
    let mut tries = 0;
    loop {
        tries += 1;
        // SAFETY: By the safety requirements the symbols are resolved.
        let raw = unsafe { read() }?;
        let mut lines = KVVec::with_capacity(raw.len(), GFP_KERNEL)?;
        for raw in raw {
            let line = Line(raw);
            // SAFETY: By the safety requirements the symbols are resolved.
            let choice = unsafe { line.choice() };
            lines.push((line, choice), GFP_KERNEL)?;
        }
        let agree = |(line, choice): &(Line, Choice)| line.seen().agrees(*choice);
        if tries == TRIES || lines.iter().all(agree) {
            return Ok(lines);
        }
        fsleep(PAUSE);
    }
}

/// Reads the state of each vCPU.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
unsafe fn read() -> Result<KVVec<bindings::vmx_vpid_mmu>> {
    let mut room = 64;
    loop {
        // The helper allocates nothing, since it holds KVM's lock while it writes: the vector has
        // its room before the call.
        let mut raw = KVVec::<bindings::vmx_vpid_mmu>::with_capacity(room, GFP_KERNEL)?;
        // SAFETY: By the safety requirements the symbols are resolved; `raw` has room for `room`
        // elements.
        let count = unsafe { bindings::vmx_vpid_mmus(raw.as_mut_ptr(), room) };
        if count > room {
            room = count.saturating_add(count / 4);
            continue;
        }
        // SAFETY: `count` is at most `room`, so the helper wrote `count` elements.
        unsafe { raw.inc_len(count) };
        return Ok(raw);
    }
}
