// SPDX-License-Identifier: GPL-2.0

//! This module lists the bugs that can be injected into the model, each by its name.
//!
//! A test that cannot fail is worth nothing: with any of these bugs, the oracle has to find a stale
//! translation.  They are bugs of the code around the module's decisions: of KVM's core, of the
//! state that a vCPU reports, of the execution of an instruction.  Bugs in the module's own code
//! are changes of its source (`testbed/mutants.toml`).

/// Makes the enumeration of faults, with their names.
macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident = $needs:ident,)*) => {
        /// Something that is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Bug {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns its name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Returns what it is, in words.
            pub(crate) fn words(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc,)+),)*
                }
            }

            /// Returns on which machines it does harm.
            pub(crate) fn needs(self) -> Needs {
                match self {
                    $(Self::$name => Needs::$needs,)*
                }
            }
        }
    };
}

impl Bug {
    /// Returns whether it only flushes too much: then nothing must be found.
    pub(crate) fn is_harmless(self) -> bool {
        self.needs() == Needs::Nothing
    }
}

/// On which machines a fault does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// With EPT on and with EPT off.
    Both,
    /// With EPT on.
    Ept,
    /// With EPT off.
    Shadow,
    /// With EPT on, where a flush of all names contexts.
    EptByContext,
    /// With EPT off, where a flush of all names contexts.
    ShadowByContext,
    /// As the one before, where KVM keeps no page for some roots.
    UnknownRoots,
    /// With EPT on and with EPT off, where new tags are given out in the place of flushes.
    Generations,
    /// With EPT on, there.
    EptGenerations,
    /// On none: a control.
    Nothing,
    /// In a sequence of its own ([`super::search::regressions`]): at random it hardly ever does.
    Told,
}

bugs! {
    /// `vmx_vcpu_load_vmcs()` asks for nothing when vmcs01 comes to a CPU.
    NoFlushOnLoad = Both,
    /// Nor when vmcs02 does.
    NoFlushOnLoadOfVmcs02 = Ept,
    /// A new vmcs01 counts as loaded on CPU 0: a VPID is reused without a flush.
    NoFlushOnCreate = Ept,
    /// At VMXON neither vmcs02 nor vpid12 counts as new: vpid02 is reused without a flush.
    NoFlushOnVmxon = Both,
    /// `free_nested()` does not give vpid02 back.
    Vpid02Leaked = Both,
    /// A CPU goes offline, and each VMCS counts as loaded there when it is back.
    VmcsKeptOffline = Both,
    /// `kvm_mmu_load()` asks for nothing for a new root.
    NoFlushOnRootLoad = Ept,
    /// It flushes before the new root is in place: what was current.
    FlushBeforeRoot = Ept,
    /// It does not bring the tables of a new root up to date.
    NoSyncOnRootLoad = Both,
    /// `fast_pgd_switch()` takes a root for another CR3 or EPT pointer.
    RootOfAnyPgd = Shadow,
    /// `kvm_flush_remote_tlbs()` asks nothing of the vCPUs when memory changes.
    NoRemoteFlush = Both,
    /// It asks only one vCPU of two.
    RemoteFlushOfOne = Both,
    /// Memory is protected against writes without a flush.
    NoFlushOnProtect = Both,
    /// Dirty flags are cleared without a flush.
    NoFlushOnClean = Ept,
    /// A large page takes the place of small ones without a flush.
    NoFlushOnMerge = Ept,
    /// Tables are freed without a flush.
    NoFlushOnFree = Told,
    /// Tables are brought up to date without a flush.
    NoFlushOnSync = Shadow,
    /// KVM does not follow when the guest writes to a table that it shadows.
    GuestWriteUnnoticed = Both,
    /// No table is ever brought up to date.
    NothingSynchronised = Both,
    /// A flush of all leaves one pending that was requested of the current context.
    AllKeepsCurrent = Nothing,
    /// `flush_tlb_current` does nothing.
    CurrentIgnored = Both,
    /// `flush_tlb_guest` does nothing.
    GuestIgnored = Both,
    /// The guest is entered with a request pending.
    PendingAtEntry = Both,
    /// On a flush of what the guest has cached, KVM's tables are not brought up to date.
    NoSyncOnGuestFlush = Shadow,
    /// `nested_vmx_transition_tlb_flush()` asks for nothing when vpid12 changes.
    NoFlushOnVpid12 = Both,
    /// It does not remember the vpid12 that it flushed for, and flushes each time.
    Vpid12NotStored = Nothing,
    /// It asks for nothing when L2 runs with L1's VPID.
    NoFlushOnSharedVpid = Both,
    /// CR0.PG is cleared without a request to flush the guest's translations: every root is loaded
    /// again, which flushes.
    NoFlushOnPagingOff = Nothing,
    /// CR0.PG changes, and no root is freed.
    RootsKeptOnPaging = Both,
    /// CR4.PCIDE is cleared without a flush.
    NoFlushOnPcideOff = Both,
    /// CR4.PCIDE is set, and cached roots are kept that only MOV to CR3 would have flushed.
    RootsKeptOnPcideOn = Told,
    /// CR4.SMEP is set, or CR4.PAE changed, without a request: every root is loaded again, which
    /// flushes.
    NoFlushOnCr4 = Nothing,
    /// CR4.SMEP or CR4.PAE changes, and what MOV to CR3 drops is all that goes: globals stay.
    GlobalsKeptOnCr4 = Ept,
    /// CR4.SMEP or CR4.PAE changes, and no root is freed.
    RootsKeptOnCr4 = Shadow,
    /// At INIT no flush is requested: roots are loaded again, and there is an INVVPID.
    NoFlushOnInit = Nothing,
    /// At INIT no root is freed.
    RootsKeptOnInit = Shadow,
    /// At INIT nothing is flushed, and no root is freed.
    InitDropsNothing = Both,
    /// VMFUNC of an L2 without a VPID asks for no flush.
    NoFlushOnVmfunc = Told,
    /// Requests are lost at a nested entry or exit.
    TransitionLosesRequests = Both,
    /// `kvm_set_cr3()` does not have the root brought up to date.
    NoSyncOnCr3 = Shadow,
    /// It asks for no flush.
    NoFlushOnCr3 = Shadow,
    /// It keeps cached roots of the PCID that is loaded.
    RootsKeptOnCr3 = Shadow,
    /// A change of CR4.PGE asks for nothing.
    NoFlushOnPge = Shadow,
    /// The vCPU does not tell its current root.
    HiddenCurrentRoot = EptByContext,
    /// It does not tell its cached roots.
    HiddenCachedRoots = EptByContext,
    /// It does not tell the current root of L2.
    HiddenL2Root = EptByContext,
    /// It does not tell the cached roots of L2.
    HiddenCachedL2Roots = EptByContext,
    /// It takes a root of which KVM keeps no page for none.
    UnknownRootsHidden = UnknownRoots,
    /// It tells the wrong table for a root: another EP4TA.
    WrongRootNamed = Ept,
    /// For the current root it tells that of the other MMU.
    RootOfOtherMmu = Ept,
    /// It does not tell its vpid01.
    HiddenVpid01 = ShadowByContext,
    /// It does not tell its vpid02.
    HiddenVpid02 = ShadowByContext,
    /// It takes vpid01 for the VPID in use, in L2 too.
    AlwaysVpid01 = Both,
    /// It takes vpid02 for the VPID in use, in L1 too.
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
    /// INVVPID of all contexts is issued in the place of INVEPT.
    InvvpidForInvept = Ept,
    /// The record is written without keeping the task where it is.
    RecordsUnpinned = Told,
    /// The CPU keeps what the guest's own instructions drop: as if they were not executed.
    CpuKeepsAll = Ept,
    /// A guest's INVLPG is not carried out on this CPU.
    AddressNotFlushed = Shadow,
    /// It is carried out in the current root alone.
    OnlyCurrentRoot = Shadow,
    /// After INVPCID of the current PCID its root is not brought up to date.
    SyncNotRequested = Shadow,
    /// Nor is it flushed.
    CurrentNotRequested = Shadow,
    /// After INVPCID of another PCID its roots are kept.
    RootsNotFreed = Shadow,
    /// After INVPCID of all PCIDs nothing is requested.
    GuestNotRequested = Shadow,
    /// L1's INVVPID issues nothing.
    InvvpidOfL1NotIssued = Ept,
    /// The task may move between the question where L2 ran and the INVVPID.
    InvvpidOfL1Unpinned = Nothing,
    /// L2 is taken to have run here last, wherever it did.
    Vmcs02TakenToBeHere = Nothing,
    /// L1's INVVPID leaves the vpid12 that L2 ran with as it is.
    Vpid12NotForgotten = Nothing,
    /// After L1's INVVPID the shadow tables of L2 are kept.
    L2RootsNotFreed = Shadow,
    /// L1's INVEPT compares pointers, and not their tags.
    ComparedByPointer = Ept,
    /// It drops the current root of L2 alone, and not the cached ones.
    OnlyCurrentEpt12Root = Ept,
    /// It drops no root.
    Ept12RootsNotFreed = Ept,
    /// At the end of a generation of tags nothing is flushed.
    RolloverKeeps = Generations,
    /// A vCPU keeps its tag where it asked for a flush of what its guest cached.
    TagKeptOnRequest = Generations,
    /// An EPT that was changed counts as flushed on CPUs where it was flushed before.
    ChangedEptTakenAsClean = EptGenerations,
}

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bugs(u128);

impl Bugs {
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);

    /// One thing.
    pub(crate) const fn one(bug: Bug) -> Self {
        // CAST: The number of a fault.
        Self(1 << bug as u32)
    }

    /// One thing more.
    pub(crate) const fn and(self, bug: Bug) -> Self {
        Self(self.0 | Self::one(bug).0)
    }

    /// Whether something is broken.
    pub(crate) const fn has(self, bug: Bug) -> bool {
        self.0 >> bug as u32 & 1 != 0
    }
}
