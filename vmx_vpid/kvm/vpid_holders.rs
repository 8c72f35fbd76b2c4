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
/// two vCPUs may exchange a VPID.  The next read then agrees.
const TRIES: u32 = 4;

/// Returns the lines of the VPIDs that are in use or claimed, for a read of debugfs.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// A read of debugfs calls this function, and kvm_intel's symbols are resolved until it returns.
pub(super) unsafe fn lines() -> Result<KVVec<Line>> {
    // SAFETY: By the safety requirements a read of debugfs runs, and the symbols are resolved until
    // this function returns, which they are only while kvm_intel is loaded.
    let vpids = unsafe { Vpids::new() };
    let mut tries = 0;
    loop {
        tries += 1;
        let mut in_use = KBox::<Words>::zeroed(GFP_KERNEL)?;
        // The VPIDs are read before the claims and after them: a vCPU that is created or destroyed
        // in between holds its VPID at one of the two times.
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

/// Returns the VPIDs that each vCPU claims to hold, in ascending order of VPIDs.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// kvm_intel's symbols are resolved until this returns.
unsafe fn claims() -> Result<KVVec<Claim>> {
    let mut room = 64;
    loop {
        // The helper allocates nothing, since it holds KVM's lock while it writes: the vector has
        // its room before the call.
        let mut raw = KVVec::<bindings::vmx_vpid_claim>::with_capacity(room, GFP_KERNEL)?;
        // SAFETY: By the safety requirements the symbols are resolved; `raw` has room for `room`
        // claims.
        let count = unsafe { bindings::vmx_vpid_claims(raw.as_mut_ptr(), room) };
        if count > room {
            room = count.saturating_add(count / 4);
            continue;
        }
        // SAFETY: `count` is at most `room`, so the helper wrote `count` claims.
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

/// The content of `vpids` in debugfs: the VPIDs in use as they were at one time.
pub(crate) enum VpidList {
    /// The backend is detached: the line to show instead.
    Unknown(&'static str),
    /// The lines, each with the CPUs on which the VPID was flushed.
    Lines(KVVec<(Line, KVec<u32>)>),
}

impl VpidList {
    /// Makes the list of a detached backend; `live` is whether kvm_intel is loaded.
    pub(crate) fn unknown(live: bool) -> Self {
        Self::Unknown(symbols::absence(live))
    }

    /// Makes a list of lines; `flushed` returns the CPUs on which a VPID was flushed.
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

    /// Returns whether the list has a line with this number, counted from 0.
    pub(crate) fn has(&self, line: u64) -> bool {
        let count = match self {
            Self::Unknown(_) => 1,
            Self::Lines(lines) => lines.len(),
        };
        usize::try_from(line).is_ok_and(|line| line < count)
    }
}
