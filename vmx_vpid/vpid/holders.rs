// SPDX-License-Identifier: GPL-2.0

//! This module finds out which vCPU holds which VPID, as far as this is visible from outside KVM.
//!
//! KVM does not record which vCPU got a VPID.  The holders are thus collected when a user reads the
//! list: each vCPU names its VPIDs, and these claims are compared with the VPIDs in use.  VMs may
//! be created and destroyed at the same time, so a mismatch may belong to a vCPU that is just being
//! created or destroyed.  A mismatch while no VM is created or destroyed is a bug, and the list
//! shows it.

use crate::vpid::{
    bitmap::{
        members,
        Words, //
    },
    Vpid, //
};
use kernel::prelude::*;

/// The statement of a vCPU that it holds a VPID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The VPID.
    pub(crate) vpid: Vpid,
    /// Whether the VPID is the vCPU's vpid02, the VPID for L2.
    pub(crate) l2: bool,
    /// The process that created the VM.
    pub(crate) pid: i32,
    /// The vCPU's number in the VM.
    pub(crate) vcpu: i32,
    /// The CPU on which the vCPU was last loaded; `None` for a vCPU that was never loaded.
    pub(crate) cpu: Option<u32>,
}

/// Whether the allocator and the claims agree about a VPID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The VPID is in use, and one vCPU holds it.
    Held,
    /// The VPID is in use, and no vCPU holds it.
    Unclaimed,
    /// The VPID is in use, and several contexts hold it.
    Double,
    /// A vCPU holds the VPID, and the VPID is not in use.
    Free,
}

/// A line of the list: a VPID that is in use or claimed; a VPID has a line for each claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The VPID.
    pub(crate) vpid: Vpid,
    /// The claim, if a vCPU claims the VPID.
    pub(crate) claim: Option<Claim>,
    /// Whether the allocator and the claims agree.
    pub(crate) verdict: Verdict,
}

/// Compares the VPIDs in use with the claims; returns the lines of the list, in ascending order of
/// VPIDs.
///
/// The claims have to be in ascending order of VPIDs, too.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn compare(in_use: &Words, claims: &[Claim]) -> Result<KVVec<Line>> {
    let count: u32 = in_use.iter().map(|word| word.count_ones()).sum();
    let mut lines = KVVec::with_capacity(count as usize + claims.len(), GFP_KERNEL)?;
    let mut rest = claims;
    for (index, &word) in in_use.iter().enumerate() {
        for vpid in members(index, word) {
            let (before, of_it, after) = split(rest, vpid);
            for &claim in before {
                add(&mut lines, claim.vpid, Some(claim), Verdict::Free)?;
            }
            let verdict = match of_it {
                [] => Verdict::Unclaimed,
                [_] => Verdict::Held,
                _ => Verdict::Double,
            };
            if of_it.is_empty() {
                add(&mut lines, vpid, None, verdict)?;
            }
            for &claim in of_it {
                add(&mut lines, vpid, Some(claim), verdict)?;
            }
            rest = after;
        }
    }
    for &claim in rest {
        add(&mut lines, claim.vpid, Some(claim), Verdict::Free)?;
    }
    Ok(lines)
}

/// Splits sorted claims into the claims below a VPID, the claims of it, and the claims above it.
fn split(claims: &[Claim], vpid: Vpid) -> (&[Claim], &[Claim], &[Claim]) {
    let below = claims.partition_point(|claim| claim.vpid.into_raw() < vpid.into_raw());
    let (before, rest) = claims.split_at(below);
    let (of_it, after) = rest.split_at(rest.partition_point(|claim| claim.vpid == vpid));
    (before, of_it, after)
}

/// Adds a line.
fn add(lines: &mut KVVec<Line>, vpid: Vpid, claim: Option<Claim>, verdict: Verdict) -> Result {
    let line = Line {
        vpid,
        claim,
        verdict,
    };
    Ok(lines.push(line, GFP_KERNEL)?)
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_holders)]
mod tests {
    use super::*;

    fn claim(vpid: u16, pid: i32) -> Result<Claim> {
        Ok(Claim {
            vpid: Vpid::new(vpid).ok_or(EINVAL)?,
            l2: false,
            pid,
            vcpu: 0,
            cpu: Some(0),
        })
    }

    #[test]
    fn mismatches_of_claims_and_vpids_in_use_are_listed() -> Result {
        let mut in_use = KBox::<Words>::zeroed(GFP_KERNEL)?;
        // VPID 0 is the host's, and has no line; 3, 63, 64 and 65535 are in use.
        in_use[0] = 1 | 1 << 3 | 1 << 63;
        in_use[1] = 1;
        in_use[1023] = 1 << 63;
        let mut claims = KVVec::new();
        for (vpid, pid) in [
            (1, 7),
            (3, 3),
            (5, 2),
            (64, 1),
            (64, 4),
            (70, 5),
            (65535, 6),
        ] {
            claims.push(claim(vpid, pid)?, GFP_KERNEL)?;
        }
        let lines = compare(&in_use, &claims)?;
        let wanted = [
            (1, Some(7), Verdict::Free),
            (3, Some(3), Verdict::Held),
            (5, Some(2), Verdict::Free),
            (63, None, Verdict::Unclaimed),
            (64, Some(1), Verdict::Double),
            (64, Some(4), Verdict::Double),
            (70, Some(5), Verdict::Free),
            (65535, Some(6), Verdict::Held),
        ];
        assert_eq!(lines.len(), wanted.len());
        for (line, (vpid, pid, verdict)) in lines.iter().zip(wanted) {
            assert_eq!((line.vpid.into_raw(), line.verdict), (vpid, verdict));
            assert_eq!(line.claim.map(|claim| claim.pid), pid);
        }
        Ok(())
    }
}
