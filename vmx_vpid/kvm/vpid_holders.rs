// SPDX-License-Identifier: GPL-2.0

//! This module reads from KVM's lists which vCPU holds which VPID.

use crate::{
    bindings,
    kvm::{
        symbols,
        vpid_lock::Vpids, //
    },
    vpid::{
        allocator::VpidLock,
        bitmap::Words,
        holders::{
            self,
            Claim,
            Line,
            Verdict, //
        },
        Vpid, //
    }, //
};
use kernel::prelude::*;

/// The number of reads before a difference is shown as a bug.
///
/// A vCPU may be created or destroyed between the read of the VPIDs and the read of the claims, or
/// two may exchange a VPID; the next read agrees.
const TRIES: u32 = 4;

/// Returns a line for each VPID in use or claimed.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
pub(super) unsafe fn lines() -> Result<KVVec<Line>> {
    // SAFETY: The contract of this function, which is called to be read in debugfs.
    let vpids = unsafe { Vpids::new() };
    let mut tries = 0;
    loop {
        tries += 1;
        let mut in_use = KBox::<Words>::zeroed(GFP_KERNEL)?;
        // Read the VPIDs before the claims and after them: a vCPU that is created or destroyed in
        // between holds its VPID at one of the two times.
        vpids.locked(|allocators| allocators.add_to(&mut in_use));
        // SAFETY: By the safety requirements the symbols are resolved.
        let claims = unsafe { claims() }?;
        vpids.locked(|allocators| allocators.add_to(&mut in_use));
        let lines = holders::compare(&in_use, &claims)?;
        let is_fault = |line: &Line| matches!(line.verdict, Verdict::Double | Verdict::Free);
        if tries == TRIES || !lines.iter().any(is_fault) {
            return Ok(lines);
        }
    }
}

/// Returns what every vCPU says that it holds.
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
unsafe fn claims() -> Result<KVVec<Claim>> {
    let mut room = 64;
    loop {
        // The memory is allocated in advance, because nothing may be allocated with KVM's lock
        // held.
        let mut raw = KVVec::<bindings::vmx_vpid_claim>::with_capacity(room, GFP_KERNEL)?;
        // SAFETY: By the contract; the vector has the room.
        let count = unsafe { bindings::vmx_vpid_claims(raw.as_mut_ptr(), room) };
        if count > room {
            room = count.saturating_add(count / 4);
            continue;
        }
        // SAFETY: So many were written.
        unsafe { raw.inc_len(count) };
        let mut claims = KVVec::with_capacity(count, GFP_KERNEL)?;
        for claim in &raw {
            if let Some(vpid) = Vpid::new(claim.vpid) {
                let claim = Claim {
                    vpid,
                    l2: claim.l2,
                    pid: claim.pid,
                    vcpu: claim.vcpu,
                    cpu: u32::try_from(claim.cpu).ok(),
                };
                claims.push(claim, GFP_KERNEL)?;
            }
        }
        return Ok(claims);
    }
}

/// The VPIDs in use as they were at one time, for `vpids`.
pub(crate) enum VpidList {
    /// Nothing is known of them; why.
    Unknown(&'static str),
    /// A line for each, and where it was flushed.
    Lines(KVVec<(Line, KVec<u32>)>),
}

impl VpidList {
    /// Makes a list that says why nothing is known.
    pub(crate) fn unknown(live: bool) -> Self {
        Self::Unknown(symbols::absence(live))
    }

    /// Makes a list of lines; `flushed` tells on which CPUs a VPID was flushed.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new<I: Iterator<Item = u32>>(
        lines: KVVec<Line>,
        flushed: impl Fn(Vpid) -> I,
    ) -> Result<Self> {
        let mut all = KVVec::with_capacity(lines.len(), GFP_KERNEL)?;
        for line in lines {
            let mut cpus = KVec::new();
            for cpu in flushed(line.vpid) {
                cpus.push(cpu, GFP_KERNEL)?;
            }
            all.push((line, cpus), GFP_KERNEL)?;
        }
        Ok(Self::Lines(all))
    }

    /// Returns whether there is a line of this number, the first being 0.
    pub(crate) fn has(&self, line: u64) -> bool {
        let count = match self {
            Self::Unknown(_) => 1,
            Self::Lines(lines) => lines.len(),
        };
        usize::try_from(line).is_ok_and(|line| line < count)
    }
}
