// SPDX-License-Identifier: GPL-2.0

//! This module models the flushes of kvm_intel's C code, as a second backend of the model.
//!
//! The model follows Linux 7.3.  The same steps and the same oracle test this backend and the Rust
//! code, alone and in the middle of an attach.

use crate::{
    ept,
    flush::{
        execute::{
            FlushFailed,
            Invalidate,
            Invalidation,
            Plan, //
        },
        policy::Switches,
        tags::{
            Root,
            Tags, //
        },
        Request, //
    },
    invvpid,
    vpid::Vpid,
    x86::addr::CanonicalGva, //
};

/// Bits of `IA32_VMX_EPT_VPID_CAP` for the supported types of INVVPID and INVEPT.
mod bit {
    /// INVEPT of a context.
    pub(crate) const INVEPT_CONTEXT: u64 = 1 << 25;
    /// INVVPID of an address.
    pub(crate) const INVVPID_ADDRESS: u64 = 1 << 40;
    /// INVVPID of a context.
    pub(crate) const INVVPID_CONTEXT: u64 = 1 << 41;
    /// INVVPID of all contexts.
    pub(crate) const INVVPID_ALL: u64 = 1 << 42;
}

/// Returns the INVVPID that covers a VPID: `vpid_sync_context()`.
pub(crate) fn context(vpid: Option<Vpid>, lacking: u64) -> Option<Invalidation> {
    let vpid = vpid?;
    Some(Invalidation::Invvpid(
        if lacking & bit::INVVPID_CONTEXT == 0 {
            invvpid::Extent::Context(vpid)
        } else {
            invvpid::Extent::All
        },
    ))
}

/// Returns the INVVPID that covers an address of a VPID: `vpid_sync_vcpu_addr()`.
pub(crate) fn address(vpid: Option<Vpid>, gva: CanonicalGva, lacking: u64) -> Option<Invalidation> {
    match vpid {
        Some(vpid) if lacking & bit::INVVPID_ADDRESS == 0 => {
            let extent = invvpid::Extent::Address(vpid, gva);
            Some(Invalidation::Invvpid(extent))
        }
        vpid => context(vpid, lacking),
    }
}

/// Returns the instructions for a request: `vmx_flush_tlb_*()`.
fn plan(request: Request, tags: &impl Tags, lacking: u64) -> [Option<Invalidation>; 2] {
    let all_epts = Invalidation::Invept(ept::Extent::All);
    match request {
        Request::All if tags.ept() => [Some(all_epts), None],
        Request::All if !tags.vpid() => [None, None],
        Request::All if lacking & bit::INVVPID_ALL == 0 => {
            [Some(Invalidation::Invvpid(invvpid::Extent::All)), None]
        }
        Request::All => [tags.vpid01(), tags.vpid02()].map(|vpid| context(vpid, lacking)),
        Request::Current => match tags.root() {
            Root::Invalid => [None, None],
            Root::Known {
                table,
                levels,
                accessed_dirty,
            } if tags.ept() => {
                let eptp = ept::Eptp::for_root(table, levels, accessed_dirty);
                let extent = ept::Extent::Context(eptp);
                let narrow = lacking & bit::INVEPT_CONTEXT == 0;
                let what = if narrow {
                    Invalidation::Invept(extent)
                } else {
                    all_epts
                };
                [Some(what), None]
            }
            Root::Unknown if tags.ept() => [Some(all_epts), None],
            _ => [context(tags.current_vpid(), lacking), None],
        },
        Request::Gva(gva) => [address(tags.current_vpid(), gva, lacking), None],
        Request::Guest => [context(tags.current_vpid(), lacking), None],
    }
}

/// Serves a request like the C code.
pub(crate) fn flush(
    request: Request,
    tags: &impl Tags,
    switches: Switches,
    cpu: impl Invalidate,
) -> Result<(), FlushFailed> {
    Plan::several(plan(request, tags, switches.caps_mask)).execute(cpu)
}
