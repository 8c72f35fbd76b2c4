// SPDX-License-Identifier: GPL-2.0

//! This module names the bugs that the tests inject into the model.
//!
//! A test that cannot fail is worth nothing: with any of these bugs, the oracle has to find an
//! error.  The bugs are in the surroundings of the module's decisions: in KVM's core, in the tags
//! that a vCPU reports, in the execution of an instruction.  Bugs in the module's own code are
//! changes of the source (`testbed/mutants.toml`).

/// Defines the enumeration of the bugs, with their names.
macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $needs:ident,)*) => {
        /// An injected bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Bug {
            /// All bugs.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the bug's name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Returns a description of the bug.
            pub(crate) fn words(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc,)+),)*
                }
            }

            /// Returns on which machines the bug does harm.
            pub(crate) fn needs(self) -> Needs {
                match self {
                    $(Self::$name => Needs::$needs,)*
                }
            }
        }
    };
}

impl Bug {
    /// Returns whether the bug only causes extra flushes: the oracle must find no error then.
    pub(crate) fn is_harmless(self) -> bool {
        self.needs() == Needs::Nothing
    }
}

/// The machines on which a bug does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// With EPT on and with EPT off.
    Both,
    /// With EPT on.
    Ept,
    /// With EPT off.
    Shadow,
    /// With EPT on, where a flush of all contexts flushes single contexts.
    EptByContext,
    /// With EPT off, where a flush of all contexts flushes single contexts.
    ShadowByContext,
    /// With EPT on, where a flush of all flushes single contexts and KVM has no page for some
    /// roots.
    UnknownRoots,
    /// With EPT on and with EPT off, where a CPU allocates new tags instead of flushing.
    Generations,
    /// With EPT on, where a CPU allocates new tags instead of flushing.
    EptGenerations,
    /// On no machine: a control.
    Nothing,
    /// In a sequence of [`super::search::regressions`]; random steps hardly ever find the bug.
    Regression,
}

bugs! {
    /// `vmx_vcpu_load_vmcs()` requests no flush when vmcs01 is loaded on another CPU.
    NoFlushOnLoad = Both,
    /// `vmx_vcpu_load_vmcs()` requests no flush when vmcs02 is loaded on another CPU.
    NoFlushOnLoadOfVmcs02 = Ept,
    /// A new vmcs01 counts as loaded on CPU 0: a VPID is reused without a flush.
    NoFlushOnCreate = Ept,
    /// At VMXON, vmcs02 and vpid12 keep their old state: vpid02 is reused without a flush.
    NoFlushOnVmxon = Both,
    /// `free_nested()` does not free vpid02.
    Vpid02Leaked = Both,
    /// After a CPU goes offline and online, each VMCS still counts as loaded there.
    VmcsKeptOffline = Both,
    /// `kvm_mmu_load()` does not flush for a new root.
    NoFlushOnRootLoad = Ept,
    /// `kvm_mmu_load()` flushes before the new root is in place, and so flushes the old root.
    FlushBeforeRoot = Ept,
    /// `kvm_mmu_load()` does not synchronise the tables of a new root.
    NoSyncOnRootLoad = Both,
    /// `fast_pgd_switch()` uses a cached root of another CR3 or EPT pointer.
    RootOfAnyPgd = Shadow,
    /// `kvm_flush_remote_tlbs()` sends no request to the vCPUs when memory changes.
    NoRemoteFlush = Both,
    /// `kvm_flush_remote_tlbs()` sends a request to only one of two vCPUs.
    RemoteFlushOfOne = Both,
    /// Memory is protected against writes without a flush.
    NoFlushOnProtect = Both,
    /// Dirty flags are cleared without a flush.
    NoFlushOnClean = Ept,
    /// A large page replaces small pages without a flush.
    NoFlushOnMerge = Ept,
    /// Tables are freed without a flush.
    NoFlushOnFree = Regression,
    /// Tables are synchronised without a flush.
    NoFlushOnSync = Shadow,
    /// KVM does not notice a guest's write to a table that KVM shadows.
    GuestWriteUnnoticed = Both,
    /// No table is ever synchronised.
    NothingSynchronised = Both,
    /// A flush of all contexts leaves a pending flush of the current context pending.
    AllKeepsCurrent = Nothing,
    /// `flush_tlb_current` does nothing.
    CurrentIgnored = Both,
    /// `flush_tlb_guest` does nothing.
    GuestIgnored = Both,
    /// The guest is entered with a request pending.
    PendingAtEntry = Both,
    /// A flush of the guest's translations does not synchronise KVM's tables.
    NoSyncOnGuestFlush = Shadow,
    /// `nested_vmx_transition_tlb_flush()` requests no flush when vpid12 changes.
    NoFlushOnVpid12 = Both,
    /// `nested_vmx_transition_tlb_flush()` does not store the flushed vpid12, and flushes each
    /// time.
    Vpid12NotStored = Nothing,
    /// `nested_vmx_transition_tlb_flush()` requests no flush when L2 runs with L1's VPID.
    NoFlushOnSharedVpid = Both,
    /// CR0.PG is cleared without a request to flush the guest's translations: every root is
    /// reloaded, which flushes.
    NoFlushOnPagingOff = Nothing,
    /// CR0.PG changes, and no root is freed.
    RootsKeptOnPaging = Both,
    /// CR4.PCIDE is cleared without a flush.
    NoFlushOnPcideOff = Both,
    /// CR4.PCIDE is set, and cached roots are kept that only MOV to CR3 would have flushed.
    RootsKeptOnPcideOn = Regression,
    /// CR4.SMEP is set, or CR4.PAE changed, without a request: every root is reloaded, which
    /// flushes.
    NoFlushOnCr4 = Nothing,
    /// CR4.SMEP or CR4.PAE changes, and KVM flushes like MOV to CR3: globals stay cached.
    GlobalsKeptOnCr4 = Ept,
    /// CR4.SMEP or CR4.PAE changes, and no root is freed.
    RootsKeptOnCr4 = Shadow,
    /// INIT requests no flush: roots are reloaded, and there is an INVVPID.
    NoFlushOnInit = Nothing,
    /// INIT frees no root.
    RootsKeptOnInit = Shadow,
    /// INIT flushes nothing and frees no root.
    InitDropsNothing = Both,
    /// VMFUNC of an L2 without a VPID requests no flush.
    NoFlushOnVmfunc = Regression,
    /// A nested entry or exit drops pending requests.
    TransitionLosesRequests = Both,
    /// `kvm_set_cr3()` does not request that the root is synchronised.
    NoSyncOnCr3 = Shadow,
    /// `kvm_set_cr3()` requests no flush.
    NoFlushOnCr3 = Shadow,
    /// `kvm_set_cr3()` keeps cached roots of the PCID that is loaded.
    RootsKeptOnCr3 = Shadow,
    /// A change of CR4.PGE requests no flush.
    NoFlushOnPge = Shadow,
    /// The vCPU does not report its current root.
    HiddenCurrentRoot = EptByContext,
    /// The vCPU does not report its cached roots.
    HiddenCachedRoots = EptByContext,
    /// The vCPU does not report the current root of L2.
    HiddenL2Root = EptByContext,
    /// The vCPU does not report the cached roots of L2.
    HiddenCachedL2Roots = EptByContext,
    /// The vCPU reports a root without a page of KVM's as invalid.
    UnknownRootsHidden = UnknownRoots,
    /// The vCPU reports the wrong table of a root: another EP4TA.
    WrongRootNamed = Ept,
    /// The vCPU reports the current root of the other MMU.
    RootOfOtherMmu = Ept,
    /// The vCPU does not report its vpid01.
    HiddenVpid01 = ShadowByContext,
    /// The vCPU does not report its vpid02.
    HiddenVpid02 = ShadowByContext,
    /// The vCPU reports vpid01 as the VPID in use, also in L2.
    AlwaysVpid01 = Both,
    /// The vCPU reports vpid02 as the VPID in use, also in L1.
    AlwaysVpid02 = Shadow,
    /// Invalidations are executed on the other CPU.
    InvalidatesElsewhere = Both,
    /// INVVPID of a context does nothing.
    InvvpidContextLost = Both,
    /// INVVPID of a context is issued as type 3, which keeps globals.
    InvvpidKeepsGlobals = Ept,
    /// INVVPID of all contexts does nothing.
    InvvpidAllLost = Shadow,
    /// INVVPID of an address does nothing.
    InvvpidAddressLost = Both,
    /// INVEPT of a context does nothing.
    InveptContextLost = Ept,
    /// INVEPT of all contexts does nothing.
    InveptAllLost = Ept,
    /// INVVPID of all contexts is issued instead of INVEPT.
    InvvpidForInvept = Ept,
    /// FlushedCpus is written with preemption enabled.
    RecordsWhilePreemptible = Regression,
    /// The CPU ignores the guest's own invalidating instructions.
    CpuKeepsAll = Ept,
    /// A guest's INVLPG does not flush this CPU.
    AddressNotFlushed = Shadow,
    /// A guest's INVLPG synchronises the current root only.
    OnlyCurrentRoot = Shadow,
    /// A guest's INVPCID of the current PCID does not synchronise the root.
    SyncNotRequested = Shadow,
    /// A guest's INVPCID of the current PCID does not flush the root.
    CurrentNotRequested = Shadow,
    /// A guest's INVPCID of another PCID keeps the roots of that PCID.
    RootsNotFreed = Shadow,
    /// A guest's INVPCID of all PCIDs requests no flush.
    GuestNotRequested = Shadow,
    /// L1's INVVPID issues nothing.
    InvvpidOfL1NotIssued = Ept,
    /// The task may migrate between the check where L2 ran last and the INVVPID.
    InvvpidOfL1WhilePreemptible = Nothing,
    /// L2 always counts as having run last on this CPU.
    Vmcs02TakenToBeHere = Nothing,
    /// L1's INVVPID does not reset the vpid12 that L2 last ran with.
    Vpid12NotForgotten = Nothing,
    /// L1's INVVPID keeps the shadow tables of L2.
    L2RootsNotFreed = Shadow,
    /// L1's INVEPT compares EPT pointers instead of their EP4TAs.
    ComparedByPointer = Ept,
    /// L1's INVEPT frees only the current root of L2, and keeps the cached roots.
    OnlyCurrentEpt12Root = Ept,
    /// L1's INVEPT frees no root.
    Ept12RootsNotFreed = Ept,
    /// The end of a generation of tags flushes nothing.
    RolloverKeeps = Generations,
    /// A vCPU keeps its tag after a request to flush the guest's translations.
    TagKeptOnRequest = Generations,
    /// A changed EPT still counts as flushed on the CPUs where it was flushed before.
    ChangedEptTakenAsClean = EptGenerations,
}

/// A set of injected bugs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bugs(u128);

impl Bugs {
    /// No bug.
    pub(crate) const NONE: Self = Self(0);

    /// Returns the set with one bug.
    pub(crate) const fn one(bug: Bug) -> Self {
        // CAST: The number of a bug is below 128.
        Self(1 << bug as u32)
    }

    /// Adds a bug to the set.
    pub(crate) const fn and(self, bug: Bug) -> Self {
        Self(self.0 | Self::one(bug).0)
    }

    /// Returns whether a bug is in the set.
    pub(crate) const fn has(self, bug: Bug) -> bool {
        self.0 >> bug as u32 & 1 != 0
    }
}
