// SPDX-License-Identifier: GPL-2.0

//! This module decides which instructions serve which flush request.
//!
//! KVM's core requests four kinds of flush, always on the CPU that has the vCPU loaded.
//! [`decide()`] chooses the instructions by the request, by how translations are tagged (with EPT
//! or not, with VPIDs or not) and by the types of INVVPID and INVEPT that the CPU has.
//!
//! An invalidation may cover more than the request, and never less: where the CPU lacks a narrow
//! type, the next wider type is used.
//!
//! With `flush_context=1`, "all" covers the contexts that the vCPU can use instead of all contexts:
//! other VMs keep their cached translations on this CPU.  Documentation/flush.rst shows for each of
//! KVM's callers why that is enough; `model/` tries to refute it.

pub(crate) mod execute;
pub(crate) mod policy;
pub(crate) mod tags;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
mod flush_tests;
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) mod mock;

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
    x86::{
        addr::CanonicalGva,
        compat::cold_path, //
    }, //
};

/// A flush that KVM's core requests; each kind is one entry of `kvm_x86_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Every translation of this vCPU, whatever its root; `flush_tlb_all`.
    All,
    /// The translations of the current root; `flush_tlb_current`.
    Current,
    /// One linear address of the guest, in the guest's current tables; `flush_tlb_gva`.
    Gva(CanonicalGva),
    /// The mappings that the guest itself may have cached: linear and combined ones;
    /// `flush_tlb_guest`.
    Guest,
}

/// Returns the narrowest extent that covers a whole VPID.
///
/// Equivalent of `vpid_sync_context()`.
#[inline]
fn context(vpid: Vpid, policy: Policy) -> invvpid::Extent {
    if policy.invvpid_context() {
        invvpid::Extent::Context(vpid)
    } else {
        cold_path();
        invvpid::Extent::All
    }
}

/// Returns the extent that covers a VPID, or one address of it, when L1 executes INVVPID.
///
/// Equivalent of `vpid_sync_context()` and `vpid_sync_vcpu_addr()` in `handle_invvpid()`.
pub(crate) fn for_l1(vpid: Vpid, gva: Option<CanonicalGva>, policy: Policy) -> invvpid::Extent {
    match gva {
        _ if policy.force() && policy.invvpid_all() => invvpid::Extent::All,
        Some(gva) if policy.invvpid_address() && !policy.force() => {
            invvpid::Extent::Address(vpid, gva)
        }
        _ => context(vpid, policy),
    }
}

/// The VPIDs for which a plan leaves no translation on this CPU that the vCPU could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushedVpids {
    /// No VPID: the plan does not cover any VPID as a whole.
    Nothing,
    /// One VPID.
    One(Vpid),
    /// Both VPIDs of the vCPU, or the only one.
    Both,
}

impl FlushedVpids {
    /// Returns the VPIDs; `None` for a VPID that the vCPU does not have.
    pub(crate) fn vpids(self, tags: &impl Tags) -> [Option<Vpid>; 2] {
        match self {
            Self::Nothing => [None, None],
            Self::One(vpid) => [Some(vpid), None],
            Self::Both => [tags.vpid01(), tags.vpid02()],
        }
    }
}

/// A CPU that records flushed VPIDs, besides issuing invalidations; see
/// [`crate::vpid::flushed_cpus`].
pub(crate) trait Recorder: Invalidate {
    /// Returns whether a VPID is recorded as flushed on this CPU; true for `None`.
    ///
    /// The task may migrate right after this check.  The flush is then issued on another CPU, and
    /// is not recorded there.  That is safe: a missing bit never claims that a VPID was flushed,
    /// and KVM requests a flush when it loads the vCPU on another CPU.
    fn is_recorded(self, vpid: Option<Vpid>) -> bool;
    /// Records that a VPID was flushed on this CPU.
    fn record(self, vpid: Vpid);
    /// Issues an instruction, unless its trace event is enabled; returns whether the instruction
    /// was issued and succeeded.
    fn issue_fast(self, what: Invalidation) -> bool;
    /// Calls a function, and keeps the task on this CPU until the function returns.
    fn with_preemption_disabled<R>(self, function: impl FnOnce() -> R) -> R;
}

/// Returns whether [`flush_fast()`] may serve a request: whether the policy treats the request as
/// [`Policy::DEFAULT`] does.
pub(crate) fn takes_fast_path(request: Request, policy: Policy) -> bool {
    match request {
        Request::All => policy == Policy::DEFAULT,
        Request::Current | Request::Gva(_) | Request::Guest => {
            policy.with_by_context(false) == Policy::DEFAULT
        }
    }
}

/// Fast path: serves a request with at most one instruction; returns whether the request was
/// served.
///
/// Serves requests for which nothing has to be recorded.  If this function returns `false`, nothing
/// was invalidated, and the caller has to call [`flush_slow()`].  A failed instruction is neither
/// counted nor reported here: the slow path issues it again, and reports a second failure.
// This path has to stay short: `flush_fast()` is compiled separately for each kind of request, so
// that no code tests the policy, and no value is needed after the instruction, so that the caller
// saves no register.
#[inline(always)]
pub(crate) fn flush_fast(request: Request, tags: &impl Tags, cpu: impl Recorder) -> bool {
    decide(request, tags, Policy::DEFAULT, ExecuteNow { tags, cpu })
}

/// Slow path: executes the plan for a request on this CPU, and records the flushed VPIDs.
///
/// # Errors
///
/// See [`Plan::execute()`].
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

/// How [`decide()`] hands over a plan: returned (slow path) or executed in place (fast path).
///
/// Each arm of [`decide()`] calls [`Self::put()`] with its own plan.  The compiler knows the
/// instruction there, so the plan does not go through memory.
trait PlanSink {
    /// The result of [`Self::put()`].
    type Output;
    /// Takes a plan, and the VPIDs that count as flushed once the plan is executed.
    fn put(self, plan: Plan, flushed: FlushedVpids) -> Self::Output;
}

/// Returns the plan and the flushed VPIDs.
struct ReturnPlan;

impl PlanSink for ReturnPlan {
    type Output = (Plan, FlushedVpids);

    fn put(self, plan: Plan, flushed: FlushedVpids) -> Self::Output {
        (plan, flushed)
    }
}

/// Executes a plan of at most one instruction if nothing has to be recorded; returns whether it was
/// executed.
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
                // Most vCPUs have no vpid02, so test it last.
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

/// Decides which instructions serve a request.
///
/// Equivalent of `vmx_flush_tlb_all()`, `_current()`, `_gva()` and `_guest()` of KVM.
#[inline(always)]
fn decide<S: PlanSink>(request: Request, tags: &impl Tags, policy: Policy, sink: S) -> S::Output {
    if policy.force() {
        cold_path();
        return sink.put(everything(tags, policy), FlushedVpids::Both);
    }
    match request {
        Request::All => all(tags, policy, sink),

        // Without a root no flush is needed: the CPU has cached nothing for it, and
        // kvm_mmu_load() flushes every new root that it loads.
        Request::Current if tags.ept() => match tags.root() {
            Root::Invalid => sink.put(Plan::Nothing, FlushedVpids::Nothing),
            // INVEPT flushes one root only, so the VPID does not count as flushed.
            root => match eptp(root) {
                // Equivalent of `vmx_flush_tlb_ept_root()`.
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

        // Equivalent of `vpid_sync_vcpu_addr()`.
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

/// Covers every translation that the vCPU can use.
#[inline(always)]
fn all<S: PlanSink>(tags: &impl Tags, policy: Policy, sink: S) -> S::Output {
    let flushed = FlushedVpids::Both;
    if policy.by_context() {
        return sink.put(by_context(tags, policy), flushed);
    }
    // With EPT on, issue INVEPT whatever the VPIDs are: neither VM entry nor INVVPID has to drop
    // guest-physical mappings, and INVEPT drops the combined mappings of every VPID, too.
    if tags.ept() {
        return sink.put(Plan::One(Invalidation::Invept(ept::Extent::All)), flushed);
    }
    // With neither EPT nor VPIDs no flush is needed: the guest runs with VPID 0, and VM entry and
    // VM exit flush VPID 0.
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

/// Covers every mapping that the current VPID tags.
///
/// Equivalent of `vpid_sync_context()`.
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
        // Without a VPID no flush is needed: the guest runs with VPID 0, and VM entry and VM exit
        // drop its linear and combined mappings.  A guest flush covers no other kind of mapping.
        None => sink.put(Plan::Nothing, FlushedVpids::Nothing),
    }
}

/// Returns the EPT pointer of a root; `None` if the pointer cannot be built.
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

/// Returns an INVVPID for each of the vCPU's two VPIDs.
///
/// A VPID that the vCPU does not have needs no INVVPID, since it tags no mapping.
fn vpids(tags: &impl Tags, policy: Policy) -> [Option<Invalidation>; 2] {
    [tags.vpid01(), tags.vpid02()].map(|vpid| Some(Invalidation::Invvpid(context(vpid?, policy))))
}

/// Covers every context that the vCPU can use, and no other context where the CPU can name single
/// ones.
///
/// - With EPT on, the plan is an INVEPT of each root.  INVEPT drops the root's guest-physical
///   mappings, and its combined mappings for every VPID.  A root that the vCPU does not keep needs
///   no flush here: kvm_mmu_load() flushes it before the vCPU uses it.
/// - With EPT off, the plan is an INVVPID of vpid01 and of vpid02: the CPU uses a mapping only by
///   its VPID.
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
            // An invalid root needs no flush: the CPU has cached nothing for it.
            (Root::Invalid, _) => None,
            (_, Some(eptp)) if policy.invept_context() => {
                Some(Invalidation::Invept(ept::Extent::Context(eptp)))
            }
            // This root cannot be named: only INVEPT of all contexts is sure to cover it.
            _ => return Plan::Wider(Invalidation::Invept(ept::Extent::All)),
        };
    }
    Plan::several(plan)
}

/// Covers every mapping of every guest on this CPU, whatever the request is.
///
/// Where the CPU cannot drop all VPIDs at once, the plan covers the vCPU's own VPIDs instead.
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

/// Returns the plan that serves a request.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) fn plan(request: Request, tags: &impl Tags, policy: Policy) -> Plan {
    decide(request, tags, policy, ReturnPlan).0
}

/// Returns the VPIDs that count as flushed once a request was served.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) fn flushed(request: Request, tags: &impl Tags, policy: Policy) -> [Option<Vpid>; 2] {
    decide(request, tags, policy, ReturnPlan).1.vpids(tags)
}
