// SPDX-License-Identifier: GPL-2.0

//! Which instruction answers which request.
//!
//! KVM's core asks for four kinds of flush, always on the CPU that has the vCPU loaded.  What has
//! to be issued follows from the request, from how translations are tagged (EPT or not, VPID or
//! not) and from what the CPU can do; that decision is [`plan()`], a pure function.
//!
//! An invalidation may always cover more than was asked for, and never less: where the CPU lacks a
//! narrow type, the next wider one is taken.

use crate::{
    addr::{
        CanonicalGva,
        Hpa, //
    },
    caps::EptVpidCap,
    ept::{
        self,
        Eptp,
        Levels, //
    },
    invvpid::{
        self,
        Vpid, //
    },
    issue::Invalidation, //
};
use core::hint::cold_path;

/// A flush that KVM's core asks for; each is one entry of `kvm_x86_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Every translation of this vCPU, whatever its root; `flush_tlb_all`.
    All,
    /// The translations of the root in use; `flush_tlb_current`.
    Current,
    /// One linear address of the guest's, in the tables it uses now; `flush_tlb_gva`.
    Gva(CanonicalGva),
    /// What the guest itself may have cached: linear and combined mappings; `flush_tlb_guest`.
    Guest,
}

/// The root of the tables that a vCPU runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// None is loaded.
    Invalid,
    /// One of which KVM knows no more than the address.
    Unknown,
    /// One with all that its EPT pointer is made of.
    Known {
        /// Address of the root table.
        table: Hpa,
        /// Number of its levels.
        levels: Levels,
        /// Whether the CPU keeps accessed and dirty flags in it.
        accessed_dirty: bool,
    },
}

/// How a vCPU's translations are tagged; what [`plan()`] asks of a vCPU, and no more.
///
/// Asked only where the answer matters, since some of them take several loads.
pub(crate) trait Tags {
    /// Whether guests run on EPT: their tags are EP4TA then, besides the VPID.
    fn ept(&self) -> bool;
    /// Whether guests run with VPIDs at all.
    fn vpid(&self) -> bool;
    /// The VPID that L1 runs with.
    fn vpid01(&self) -> Option<Vpid>;
    /// The VPID set aside for L2.
    fn vpid02(&self) -> Option<Vpid>;
    /// The VPID that this vCPU enters the guest with as it stands: that of L2 if L2 is active and
    /// L1 gave it a VPID of its own, else that of L1.
    fn current_vpid(&self) -> Option<Vpid>;
    /// The root in use.
    fn root(&self) -> Root;
}

/// The instructions that answer a request, in the order in which they are issued.
///
/// Two at most: the VPIDs of L1 and L2, on a CPU that cannot invalidate all of them at once.
pub(crate) type Plan = [Option<Invalidation>; 2];

/// Answers a request by nothing: no translation can be left that it concerns.
const NOTHING: Plan = [None, None];

/// Answers a request by one instruction.
#[inline]
fn one(invalidation: Invalidation) -> Plan {
    [Some(invalidation), None]
}

/// Covers one address of a VPID as narrowly as the CPU can; answers to `vpid_sync_vcpu_addr()`.
#[inline]
pub(crate) fn address(vpid: Vpid, gva: CanonicalGva, caps: EptVpidCap) -> invvpid::Extent {
    if caps.invvpid_address() {
        invvpid::Extent::Address(vpid, gva)
    } else {
        cold_path();
        context(vpid, caps)
    }
}

/// Covers a whole VPID as narrowly as the CPU can; answers to `vpid_sync_context()`.
#[inline]
pub(crate) fn context(vpid: Vpid, caps: EptVpidCap) -> invvpid::Extent {
    if caps.invvpid_context() {
        invvpid::Extent::Context(vpid)
    } else {
        cold_path();
        invvpid::Extent::All
    }
}

/// Covers a root's EP4TA as narrowly as can be; answers to `vmx_flush_tlb_ept_root()`.
#[inline]
fn ept_context(root: Root, caps: EptVpidCap) -> ept::Extent {
    match root {
        Root::Known {
            table,
            levels,
            accessed_dirty,
        } if caps.invept_context() => {
            ept::Extent::Context(Eptp::for_root(table, levels, accessed_dirty))
        }
        _ => {
            cold_path();
            ept::Extent::All
        }
    }
}

/// Decides which instructions answer a request.
///
/// Answers to `vmx_flush_tlb_all()`, `_current()`, `_gva()` and `_guest()` of KVM.
// Each caller asks for one kind of flush: inlined, what is left is the arm of that kind.
#[inline(always)]
pub(crate) fn plan(request: Request, tags: &impl Tags, caps: EptVpidCap) -> Plan {
    match request {
        // With EPT on, INVEPT whatever the VPIDs: neither VM entry nor INVVPID is required to drop
        // guest-physical mappings, and INVEPT drops the combined ones of every VPID too.
        Request::All if tags.ept() => one(Invalidation::Invept(ept::Extent::All)),
        // With neither EPT nor VPID the guest runs as VPID 0, which VM entry and exit flush.
        Request::All if !tags.vpid() => NOTHING,
        Request::All if caps.invvpid_all() => one(Invalidation::Invvpid(invvpid::Extent::All)),
        // A VPID that the vCPU does not have (None) tags nothing.
        Request::All => [tags.vpid01(), tags.vpid02()]
            .map(|vpid| Some(Invalidation::Invvpid(invvpid::Extent::Context(vpid?)))),

        Request::Current => match tags.root() {
            // Without a root nothing can have been cached for it: a new one is flushed when it is
            // loaded, by kvm_mmu_load().
            Root::Invalid => NOTHING,
            root if tags.ept() => one(Invalidation::Invept(ept_context(root, caps))),
            _ => guest(tags, caps),
        },

        Request::Gva(gva) => match tags.current_vpid() {
            Some(vpid) => one(Invalidation::Invvpid(address(vpid, gva, caps))),
            None => NOTHING,
        },

        Request::Guest => guest(tags, caps),
    }
}

/// Covers what the VPID in use tags.
#[inline]
fn guest(tags: &impl Tags, caps: EptVpidCap) -> Plan {
    match tags.current_vpid() {
        Some(vpid) => one(Invalidation::Invvpid(context(vpid, caps))),
        // Without a VPID the guest runs as VPID 0: VM entry and exit drop its linear and combined
        // mappings, and these are all that a guest's own flush is about.
        None => NOTHING,
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_flush)]
mod tests {
    use super::*;
    use crate::{
        addr::{
            Gva,
            LinearWidth, //
        },
        issue::Invalidation::*, //
    };
    use kernel::prelude::*;

    /// A vCPU as a flush sees it.
    struct Vcpu {
        ept: bool,
        vpid01: Option<Vpid>,
        vpid02: Option<Vpid>,
        in_l2: bool,
        root: Root,
    }

    impl Tags for Vcpu {
        fn ept(&self) -> bool {
            self.ept
        }
        fn vpid(&self) -> bool {
            self.vpid01.is_some()
        }
        fn vpid01(&self) -> Option<Vpid> {
            self.vpid01
        }
        fn vpid02(&self) -> Option<Vpid> {
            self.vpid02
        }
        fn current_vpid(&self) -> Option<Vpid> {
            match self.vpid02 {
                Some(vpid) if self.in_l2 => Some(vpid),
                _ => self.vpid01,
            }
        }
        fn root(&self) -> Root {
            self.root
        }
    }

    const ROOT: Root = Root::Known {
        table: Hpa::new(0x7000),
        levels: Levels::Four,
        accessed_dirty: true,
    };

    /// A vCPU with VPIDs 1 and 2 that runs L1.
    fn vcpu(ept: bool) -> Vcpu {
        Vcpu {
            ept,
            vpid01: Vpid::new(1),
            vpid02: Vpid::new(2),
            in_l2: false,
            root: ROOT,
        }
    }

    /// A CPU with every type of both instructions.
    fn full() -> EptVpidCap {
        EptVpidCap::from(u64::MAX)
    }

    fn whole(vpid: u16) -> Option<Invalidation> {
        Some(Invvpid(invvpid::Extent::Context(Vpid::new(vpid)?)))
    }

    const INVVPID_ALL: Option<Invalidation> = Some(Invvpid(invvpid::Extent::All));
    const INVEPT_ALL: Option<Invalidation> = Some(Invept(ept::Extent::All));

    #[test]
    fn all_takes_invept_whenever_ept_is_on() {
        let mut vcpu = vcpu(true);
        assert_eq!(plan(Request::All, &vcpu, full()), [INVEPT_ALL, None]);
        vcpu.vpid01 = None;
        assert_eq!(plan(Request::All, &vcpu, full()), [INVEPT_ALL, None]);
        vcpu.root = Root::Invalid;
        assert_eq!(plan(Request::All, &vcpu, full()), [INVEPT_ALL, None]);
    }

    #[test]
    fn all_without_ept_covers_both_vpids() {
        let mut vcpu = vcpu(false);
        assert_eq!(plan(Request::All, &vcpu, full()), [INVVPID_ALL, None]);
        let caps = full().with_invvpid_all(false);
        assert_eq!(plan(Request::All, &vcpu, caps), [whole(1), whole(2)]);
        vcpu.vpid02 = None;
        assert_eq!(plan(Request::All, &vcpu, caps), [whole(1), None]);
        vcpu.vpid01 = None;
        assert_eq!(plan(Request::All, &vcpu, caps), [None, None]);
    }

    #[test]
    fn current_with_ept_goes_by_the_root_in_use() {
        let mut vcpu = vcpu(true);
        let eptp = Eptp::for_root(Hpa::new(0x7000), Levels::Four, true);
        let one_root = Some(Invept(ept::Extent::Context(eptp)));
        assert_eq!(plan(Request::Current, &vcpu, full()), [one_root, None]);
        let caps = full().with_invept_context(false);
        assert_eq!(plan(Request::Current, &vcpu, caps), [INVEPT_ALL, None]);
        vcpu.root = Root::Unknown;
        assert_eq!(plan(Request::Current, &vcpu, full()), [INVEPT_ALL, None]);
        vcpu.root = Root::Invalid;
        assert_eq!(plan(Request::Current, &vcpu, full()), [None, None]);
    }

    #[test]
    fn a_guest_flush_goes_by_the_vpid_in_use() {
        for request in [Request::Guest, Request::Current] {
            let mut vcpu = vcpu(false);
            assert_eq!(plan(request, &vcpu, full()), [whole(1), None]);
            vcpu.in_l2 = true;
            assert_eq!(plan(request, &vcpu, full()), [whole(2), None]);
            let caps = full().with_invvpid_context(false);
            assert_eq!(plan(request, &vcpu, caps), [INVVPID_ALL, None]);
            vcpu.vpid02 = None;
            assert_eq!(plan(request, &vcpu, full()), [whole(1), None]);
            vcpu.vpid01 = None;
            assert_eq!(plan(request, &vcpu, full()), [None, None]);
        }
    }

    #[test]
    fn an_address_climbs_the_ladder() -> Result {
        let mut vcpu = vcpu(true);
        let gva = Gva::new(0x1000)
            .canonical(LinearWidth::Bits48)
            .ok_or(EINVAL)?;
        let request = Request::Gva(gva);
        let one_page = invvpid::Extent::Address(Vpid::new(1).ok_or(EINVAL)?, gva);
        assert_eq!(
            plan(request, &vcpu, full()),
            [Some(Invvpid(one_page)), None]
        );
        let caps = full().with_invvpid_address(false);
        assert_eq!(plan(request, &vcpu, caps), [whole(1), None]);
        let caps = caps.with_invvpid_context(false);
        assert_eq!(plan(request, &vcpu, caps), [INVVPID_ALL, None]);
        vcpu.vpid01 = None;
        assert_eq!(plan(request, &vcpu, caps), [None, None]);
        Ok(())
    }
}
