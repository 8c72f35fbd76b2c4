// SPDX-License-Identifier: GPL-2.0

//! Which vCPU holds which VPID, asked of KVM's own lists.

use crate::{
    bindings,
    invvpid::Vpid,
    kvm::vpid_lock::Vpids,
    vpid::{
        allocator::Shared,
        bitmap::Words,
        holders::{
            self,
            Claim,
            Line,
            Verdict, //
        }, //
    }, //
};
use kernel::prelude::*;

/// How often the lists are read before what does not fit is taken for a fault.
///
/// While VPIDs and claims are read a vCPU may come and go, or two take turns: that passes.
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
        // Once before the claims and once after: a vCPU that came or went meanwhile held its VPID
        // at one of the two.
        vpids.locked(|sides| sides.add_to(&mut in_use));
        // SAFETY: The contract of this function.
        let claims = unsafe { claims() }?;
        vpids.locked(|sides| sides.add_to(&mut in_use));
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
        // Memory is not to be asked for with KVM's lock held: hence the room in advance.
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
