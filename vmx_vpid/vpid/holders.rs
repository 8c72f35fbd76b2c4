// SPDX-License-Identifier: GPL-2.0

//! Which vCPU holds which VPID, as far as it can be told from outside.
//!
//! KVM gives VPIDs out without saying to whom.  So the holders are found when someone looks: each
//! vCPU names what it holds, which is a claim, and that is compared with what is in use.  VMs come
//! and go meanwhile; what does not fit may be of a vCPU that is just being created or destroyed.
//! What does not fit although nothing comes or goes is a fault, and is shown as one.

use crate::vpid::{
    bitmap::{
        members,
        Words, //
    },
    Vpid, //
};
use kernel::prelude::*;

/// What a vCPU says of one VPID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The VPID.
    pub(crate) vpid: Vpid,
    /// Whether it is the vCPU's vpid02, that of L2.
    pub(crate) l2: bool,
    /// The process that created the VM.
    pub(crate) pid: i32,
    /// The vCPU's number in the VM.
    pub(crate) vcpu: i32,
    /// The CPU on which it is loaded, or was last; `None` for a vCPU that never was.
    pub(crate) cpu: Option<u32>,
}

/// Whether a VPID and a claim of it agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in use, and one vCPU holds it.
    Held,
    /// It is in use, and no vCPU holds it.
    Unclaimed,
    /// Two contexts hold it.
    Double,
    /// A vCPU holds it, and it is not in use.
    Free,
}

/// One VPID that is in use or claimed, or one of two claims of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The VPID.
    pub(crate) vpid: Vpid,
    /// Who claims it.
    pub(crate) claim: Option<Claim>,
    /// Whether that agrees.
    pub(crate) verdict: Verdict,
}

/// Compares the VPIDs in use with the claims; returns a line for each, in the order of VPIDs.
///
/// The claims are to be in that order too.
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

/// Splits sorted claims into those below a VPID, those of it, and those above.
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
    fn what_does_not_fit_is_told() -> Result {
        let mut in_use = KBox::<Words>::zeroed(GFP_KERNEL)?;
        // 0 is the host's, and no line; 3, 63, 64 and 65535 are in use.
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
