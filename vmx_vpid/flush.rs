// SPDX-License-Identifier: GPL-2.0

//! Which instruction answers which request.
//!
//! KVM's core asks for four kinds of flush, always on the CPU that has the vCPU loaded.  What has
//! to be issued follows from the request, from how translations are tagged (EPT or not, VPID or
//! not) and from what the CPU can do; that decision is [`decide()`].
//!
//! An invalidation may always cover more than was asked for, and never less: where a narrow type is
//! missing, the next wider one is taken.
//!
//! With `flush_context=1`, "all" is answered by the contexts that the vCPU can use, and not by all
//! there are: other VMs keep what they have cached on this CPU.  Why that is enough, for each of
//! KVM's callers, is in Documentation/flush.rst; that it is, [`crate::model`] tries to refute.

pub(crate) mod execute;
pub(crate) mod policy;
pub(crate) mod tags;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) mod mock;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod flush_tests;

use crate::{
    ept::{
        self,
        Eptp, //
    },
    flush::{
        execute::{
            FlushFailed,
            Invalidate,
            Invalidation,
            Plan, //
        },
        policy::Policy,
        tags::{
            Root,
            Tags,
            ROOTS, //
        }, //
    },
    invvpid,
    vpid::Vpid,
    x86::addr::CanonicalGva, //
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

/// Covers a whole VPID as narrowly as can be; answers to `vpid_sync_context()`.
#[inline]
fn context(vpid: Vpid, policy: Policy) -> invvpid::Extent {
    if policy.invvpid_context() {
        invvpid::Extent::Context(vpid)
    } else {
        cold_path();
        invvpid::Extent::All
    }
}

/// Covers a VPID, or one address of it, for a hypervisor's INVVPID.
///
/// Answers to `vpid_sync_context()` and `vpid_sync_vcpu_addr()` in `handle_invvpid()`.
pub(crate) fn for_l1(vpid: Vpid, gva: Option<CanonicalGva>, policy: Policy) -> invvpid::Extent {
    match gva {
        _ if policy.force() && policy.invvpid_all() => invvpid::Extent::All,
        Some(gva) if policy.invvpid_address() && !policy.force() => {
            invvpid::Extent::Address(vpid, gva)
        }
        _ => context(vpid, policy),
    }
}

/// The VPIDs of which an answer leaves nothing on this CPU that the vCPU could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushedVpids {
    /// None: what is dropped says nothing of a whole VPID.
    Nothing,
    /// This one.
    One(Vpid),
    /// Those that the vCPU has.
    Both,
}

impl FlushedVpids {
    /// Returns the VPIDs.
    pub(crate) fn vpids(self, tags: &impl Tags) -> [Option<Vpid>; 2] {
        match self {
            Self::Nothing => [None, None],
            Self::One(vpid) => [Some(vpid), None],
            Self::Both => [tags.vpid01(), tags.vpid02()],
        }
    }
}

/// What keeps the record of where VPIDs were flushed, besides issuing invalidations: see
/// [`crate::vpid::owned`].
pub(crate) trait Recorder: Invalidate {
    /// Whether a VPID, if there is one, is recorded as flushed on this CPU.
    ///
    /// The task may move right after.  Then it is not recorded that the VPID was flushed there,
    /// which is never to say that it is clean: loading the vCPU there asks for a flush.
    fn is_recorded(self, vpid: Option<Vpid>) -> bool;
    /// Records that a VPID was flushed on this CPU.
    fn record(self, vpid: Vpid);
    /// Issues an instruction, unless somebody wants to be told of it; returns whether it was issued
    /// and worked.
    fn issue_fast(self, what: Invalidation) -> bool;
    /// Calls a function during which the task stays on this CPU.
    fn with_preemption_disabled<R>(self, function: impl FnOnce() -> R) -> R;
}

/// Whether a policy says of a request what [`Policy::DEFAULT`] says: then it may be answered by
/// [`flush_fast()`].
pub(crate) fn takes_fast_path(request: Request, policy: Policy) -> bool {
    match request {
        Request::All => policy == Policy::DEFAULT,
        Request::Current | Request::Gva(_) | Request::Guest => {
            policy.with_by_context(false) == Policy::DEFAULT
        }
    }
}

/// Carries out what answers a request as most are answered; returns whether that was done.
///
/// That is by one instruction or none, where there is nothing to be recorded.  If it is `false`,
/// nothing was dropped, and [`flush_slow()`] is to be called.  An instruction that fails is of no
/// account here: that which takes its place is counted, and reported if it fails too.
// To be short is what this is for.  It is compiled for each kind of request by itself, so that
// there is no test of the policy; and nothing that is known before the instruction is needed after
// it, so that the caller has no register to save.
#[inline(always)]
pub(crate) fn flush_fast(request: Request, tags: &impl Tags, cpu: impl Recorder) -> bool {
    decide(request, tags, Policy::DEFAULT, ExecuteNow { tags, cpu })
}

/// Carries out on this CPU what answers a request, and records it.
///
/// # Errors
///
/// Those of [`Plan::execute()`].
pub(crate) fn flush_slow(
    request: Request,
    tags: &impl Tags,
    policy: Policy,
    cpu: impl Recorder,
) -> Result<(), FlushFailed> {
    cpu.with_preemption_disabled(|| {
        let (plan, flushed) = decide(request, tags, policy, ReturnPlan);
        plan.execute(cpu)?;
        for vpid in flushed.vpids(tags).into_iter().flatten() {
            if !cpu.is_recorded(Some(vpid)) {
                cpu.record(vpid);
            }
        }
        Ok(())
    })
}

/// What becomes of a plan.
///
/// The plan is handed over where it is decided, in each arm by itself: what to issue is known there
/// when this is compiled, and does not go through memory.
trait PlanSink {
    /// What is left of it.
    type Output;
    /// Takes the plan, and the VPIDs that are clean when it was carried out.
    fn put(self, plan: Plan, flushed: FlushedVpids) -> Self::Output;
}

/// Both are kept.
struct ReturnPlan;

impl PlanSink for ReturnPlan {
    type Output = (Plan, FlushedVpids);

    fn put(self, plan: Plan, flushed: FlushedVpids) -> Self::Output {
        (plan, flushed)
    }
}

/// The plan is carried out if that is all that is to be done; whether it was is returned.
struct ExecuteNow<'a, T, C> {
    tags: &'a T,
    cpu: C,
}

impl<T: Tags, C: Recorder> PlanSink for ExecuteNow<'_, T, C> {
    type Output = bool;

    #[inline(always)]
    fn put(self, plan: Plan, flushed: FlushedVpids) -> bool {
        let Self { tags, cpu } = self;
        let recorded = match flushed {
            FlushedVpids::Nothing => true,
            FlushedVpids::One(vpid) => cpu.is_recorded(Some(vpid)),
            FlushedVpids::Both => {
                // Few have a second one: whether there is one is asked last.
                cpu.is_recorded(tags.vpid01())
                    && tags.vpid02().is_none_or(|vpid| cpu.is_recorded(Some(vpid)))
            }
        };
        match plan {
            Plan::One(what) => recorded && cpu.issue_fast(what),
            Plan::Nothing if recorded => {
                cpu.skipped();
                true
            }
            Plan::Nothing | Plan::Wider(_) | Plan::Several(_) => false,
        }
    }
}

/// Decides which instructions answer a request.
///
/// Answers to `vmx_flush_tlb_all()`, `_current()`, `_gva()` and `_guest()` of KVM.
#[inline(always)]
fn decide<S: PlanSink>(request: Request, tags: &impl Tags, policy: Policy, sink: S) -> S::Output {
    if policy.force() {
        cold_path();
        return sink.put(everything(tags, policy), FlushedVpids::Both);
    }
    match request {
        Request::All => all(tags, policy, sink),

        // Without a root nothing can have been cached for it: a new one is flushed when it is
        // loaded, by kvm_mmu_load().
        Request::Current if tags.ept() => match tags.root() {
            Root::Invalid => sink.put(Plan::Nothing, FlushedVpids::Nothing),
            // Of the VPID, that drops what was cached of one root.
            root => match eptp(root) {
                // Answers to `vmx_flush_tlb_ept_root()`.
                Some(eptp) if policy.invept_context() => {
                    let extent = ept::Extent::Context(eptp);
                    sink.put(
                        Plan::One(Invalidation::Invept(extent)),
                        FlushedVpids::Nothing,
                    )
                }
                _ => {
                    cold_path();
                    sink.put(
                        Plan::Wider(Invalidation::Invept(ept::Extent::All)),
                        FlushedVpids::Nothing,
                    )
                }
            },
        },
        Request::Current => match tags.root() {
            Root::Invalid => sink.put(Plan::Nothing, FlushedVpids::Nothing),
            _ => guest(tags, policy, sink),
        },

        // Answers to `vpid_sync_vcpu_addr()`.
        Request::Gva(gva) => match tags.current_vpid() {
            Some(vpid) if policy.invvpid_address() => {
                let extent = invvpid::Extent::Address(vpid, gva);
                sink.put(
                    Plan::One(Invalidation::Invvpid(extent)),
                    FlushedVpids::Nothing,
                )
            }
            Some(vpid) => {
                cold_path();
                let extent = context(vpid, policy);
                sink.put(
                    Plan::Wider(Invalidation::Invvpid(extent)),
                    FlushedVpids::Nothing,
                )
            }
            None => sink.put(Plan::Nothing, FlushedVpids::Nothing),
        },

        Request::Guest => guest(tags, policy, sink),
    }
}

/// Covers all that the vCPU can use.
#[inline(always)]
fn all<S: PlanSink>(tags: &impl Tags, policy: Policy, sink: S) -> S::Output {
    let flushed = FlushedVpids::Both;
    if policy.by_context() {
        return sink.put(by_context(tags, policy), flushed);
    }
    // With EPT on, INVEPT whatever the VPIDs: neither VM entry nor INVVPID is required to drop
    // guest-physical mappings, and INVEPT drops the combined ones of every VPID too.
    if tags.ept() {
        return sink.put(Plan::One(Invalidation::Invept(ept::Extent::All)), flushed);
    }
    // With neither EPT nor VPID the guest runs as VPID 0, which VM entry and exit flush.
    if !tags.vpid() {
        return sink.put(Plan::Nothing, FlushedVpids::Nothing);
    }
    if policy.invvpid_all() {
        return sink.put(
            Plan::One(Invalidation::Invvpid(invvpid::Extent::All)),
            flushed,
        );
    }
    sink.put(Plan::several(vpids(tags, policy)), flushed)
}

/// Covers what the VPID in use tags; answers to `vpid_sync_context()`.
#[inline(always)]
fn guest<S: PlanSink>(tags: &impl Tags, policy: Policy, sink: S) -> S::Output {
    match tags.current_vpid() {
        Some(vpid) if policy.invvpid_context() => {
            let extent = invvpid::Extent::Context(vpid);
            sink.put(
                Plan::One(Invalidation::Invvpid(extent)),
                FlushedVpids::One(vpid),
            )
        }
        Some(vpid) => {
            cold_path();
            let extent = invvpid::Extent::All;
            sink.put(
                Plan::Wider(Invalidation::Invvpid(extent)),
                FlushedVpids::One(vpid),
            )
        }
        // Without a VPID the guest runs as VPID 0: VM entry and exit drop its linear and combined
        // mappings, and these are all that a guest's own flush is about.
        None => sink.put(Plan::Nothing, FlushedVpids::Nothing),
    }
}

/// Returns the EPT pointer of a root of which enough is known.
#[inline]
fn eptp(root: Root) -> Option<Eptp> {
    match root {
        Root::Known {
            table,
            levels,
            accessed_dirty,
        } => Some(Eptp::for_root(table, levels, accessed_dirty)),
        Root::Invalid | Root::Unknown => None,
    }
}

/// Covers all that the vCPU's two VPIDs tag; one that it does not have (`None`) tags nothing.
fn vpids(tags: &impl Tags, policy: Policy) -> [Option<Invalidation>; 2] {
    [tags.vpid01(), tags.vpid02()].map(|vpid| Some(Invalidation::Invvpid(context(vpid?, policy))))
}

/// Covers every context that the vCPU can use, and no other if the CPU can.
///
/// - With EPT on, mappings are used by their EP4TA, whatever the VPID: INVEPT of each root drops
///   the guest-physical ones and the combined ones of every VPID.  A root that the vCPU does not
///   keep is flushed by kvm_mmu_load() before it is used.
/// - With EPT off, mappings are used by their VPID: INVVPID of vpid01 and vpid02.
#[cold]
#[inline(never)]
fn by_context(tags: &impl Tags, policy: Policy) -> Plan {
    if !tags.ept() {
        return if !tags.vpid() {
            Plan::Nothing
        } else if policy.invvpid_context() {
            Plan::several(vpids(tags, policy))
        } else {
            Plan::Wider(Invalidation::Invvpid(invvpid::Extent::All))
        };
    }
    let mut plan = [None; ROOTS];
    for (slot, root) in plan.iter_mut().zip(tags.roots()) {
        *slot = match (root, eptp(root)) {
            // Nothing can be cached for a root that is not there.
            (Root::Invalid, _) => None,
            (_, Some(eptp)) if policy.invept_context() => {
                Some(Invalidation::Invept(ept::Extent::Context(eptp)))
            }
            // A root that cannot be named: only all contexts are sure to have it.
            _ => return Plan::Wider(Invalidation::Invept(ept::Extent::All)),
        };
    }
    Plan::several(plan)
}

/// Covers everything of every guest on this CPU, whatever was asked for.
///
/// Where the CPU cannot drop every VPID at once, those of the vCPU.
#[cold]
#[inline(never)]
fn everything(tags: &impl Tags, policy: Policy) -> Plan {
    let ept = tags.ept().then_some(Invalidation::Invept(ept::Extent::All));
    let [one, two] = if !tags.vpid() {
        [None, None]
    } else if policy.invvpid_all() {
        [Some(Invalidation::Invvpid(invvpid::Extent::All)), None]
    } else {
        vpids(tags, policy)
    };
    Plan::several([ept, one, two])
}

/// Returns the plan that answers a request.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) fn plan(request: Request, tags: &impl Tags, policy: Policy) -> Plan {
    decide(request, tags, policy, ReturnPlan).0
}

/// Returns the VPIDs that are clean when a request was answered.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) fn flushed(request: Request, tags: &impl Tags, policy: Policy) -> [Option<Vpid>; 2] {
    decide(request, tags, policy, ReturnPlan).1.vpids(tags)
}
