// SPDX-License-Identifier: GPL-2.0

//! This module has a mock of KVM's vCPU for the unit tests of the handlers.  The mock returns what
//! a test sets, and records the actions of a handler.

use super::{
    ExitResult,
    Nested,
    Roots,
    Translations,
    Vcpu, //
};
use crate::{
    ept::Eptp,
    flush::{
        execute::Invalidation,
        policy::{
            Policy,
            Switches, //
        },
        tags::{
            Root,
            Tags,
            ROOTS, //
        }, //
    },
    paging::{
        level::EntryWidth,
        walk::{
            Answer,
            Exchange,
            Memory, //
        },
        Features,
        Paging, //
    },
    stats::Counter,
    vmx::{
        caps::EptVpidCap,
        insn::VmInsnError,
        operand::{
            AddressSize,
            InsnInfo, //
        }, //
    },
    vpid::Vpid,
    x86::{
        addr::{
            CanonicalGva,
            Gpa,
            Gva,
            LinearWidth,
            MaxPhyAddr, //
        },
        control_regs::{
            Cr0,
            Cr3,
            Cr4,
            Efer,
            Rflags, //
        },
        exception::Exception,
        invpcid::Pcid,
        mode::{
            Gpr,
            GuestRegs,
            Mode, //
        },
        segment::{
            Rights,
            Segment,
            SegmentRegister, //
        }, //
    }, //
};
use kernel::prelude::*;

/// An action of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Resumed the guest after the instruction.
    Skipped,
    /// Raised an exception.
    Raised(Exception),
    /// Reported to user space that the instruction could not be executed.
    GaveUp,
    /// Invalidated an address in some roots.
    Invalidated(u64, Roots),
    /// Requested that the current root is synchronised.
    SyncRequested,
    /// Freed cached roots.
    Freed(Roots),
    /// Requested a flush of everything that the guest may have cached.
    FlushRequested,
    /// Issued an instruction.
    Issued(Invalidation),
    /// Forgot the vpid12 that L2 ran with.
    ForgotVpid12,
    /// Freed the shadow roots of L2.
    FreedL2,
    /// Freed roots of L2, with EPT on.
    FreedEpt12(Roots),
}

/// An address at which [`MockVcpu`] has no memory.
pub(super) const NO_MEMORY: u64 = 0xf000;

/// An address whose memory the host cannot read.
pub(super) const BROKEN_MEMORY: u64 = 0xe000;

/// A vCPU without paging, with two quadwords of memory at every address.
pub(super) struct MockVcpu {
    pub(super) mode: Mode,
    pub(super) cpl: u8,
    /// The address of INVLPG, or of the operand.
    pub(super) address: u64,
    /// The content of memory.
    pub(super) operand: [u64; 2],
    /// The value of the register: the type.
    pub(super) kind: u64,
    pub(super) cr4: Cr4,
    pub(super) has_invpcid: bool,
    pub(super) ept: bool,
    pub(super) pcids: [Option<Pcid>; Roots::COUNT],
    pub(super) vmxon: bool,
    pub(super) l1_has_vpid: bool,
    pub(super) l1_has_ept: bool,
    pub(super) l1_caps: EptVpidCap,
    pub(super) policy: Policy,
    pub(super) rflags: u64,
    pub(super) current_vmcs: bool,
    pub(super) vm_instruction_error: Option<VmInsnError>,
    pub(super) vpid02: Option<Vpid>,
    pub(super) vmcs02_is_here: bool,
    pub(super) ept12_roots: [Option<Eptp>; Roots::COUNT],
    pub(super) with_preemption_disabled: bool,
    /// The actions, in their order.
    pub(super) events: [Option<Event>; 4],
    /// The counters that were incremented, a bit for each.
    pub(super) counted: u64,
}

/// All six arithmetic flags, and the flag that is always set.
pub(super) const FLAGS: u64 = 0x8d7;

impl MockVcpu {
    /// Returns an L1 in 64-bit mode, with EPT and VPIDs.
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Bits64,
            cpl: 0,
            address: 0x1000,
            operand: [0; 2],
            kind: 0,
            cr4: Cr4::zeroed(),
            has_invpcid: true,
            ept: true,
            pcids: [None; Roots::COUNT],
            vmxon: true,
            l1_has_vpid: true,
            l1_has_ept: true,
            l1_caps: EptVpidCap::from(u64::MAX),
            policy: Switches::default().policy(EptVpidCap::from(u64::MAX)),
            rflags: FLAGS,
            current_vmcs: true,
            vm_instruction_error: None,
            vpid02: Vpid::new(2),
            vmcs02_is_here: true,
            ept12_roots: [None; Roots::COUNT],
            with_preemption_disabled: false,
            events: [None; 4],
            counted: 0,
        }
    }

    fn note(&mut self, event: Event) {
        if let Some(slot) = self.events.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(event);
        }
    }

    /// Returns whether a counter was incremented.
    pub(super) fn has_counted(&self, what: Counter) -> bool {
        self.counted & 1 << what as usize != 0
    }
}

/// Returns a list of actions, filled up with `None`.
pub(super) fn done<const N: usize>(events: [Event; N]) -> [Option<Event>; 4] {
    let mut all = events.into_iter();
    core::array::from_fn(|_| all.next())
}

impl GuestRegs for MockVcpu {
    fn mode(&self) -> Mode {
        self.mode
    }
    fn gpr(&self, _: Gpr) -> u64 {
        self.kind
    }
    fn segment(&self, register: SegmentRegister) -> Segment {
        Segment {
            base: self.segment_base(register),
            limit: u32::MAX,
            rights: Rights::from(2),
        }
    }
    fn segment_base(&self, _: SegmentRegister) -> u64 {
        0
    }
    fn cr3(&self) -> Cr3 {
        Cr3::zeroed()
    }
    fn cr4(&self) -> Cr4 {
        self.cr4
    }
}

impl Memory for MockVcpu {
    fn read_entry(&mut self, _: Gpa, _: EntryWidth) -> Option<u64> {
        None
    }
    fn exchange_entry(&mut self, _: Gpa, _: EntryWidth, _: u64, _: u64) -> Exchange {
        Exchange::NoMemory
    }
    fn read(&mut self, address: Gpa, bytes: &mut [u8]) -> Answer {
        let words = self.operand.iter().flat_map(|word| word.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(words) {
            *to = from;
        }
        match address.into_raw() {
            NO_MEMORY => Answer::NoMemory,
            BROKEN_MEMORY => Answer::HostFailure,
            _ => Answer::Bytes,
        }
    }
    fn pdpte(&mut self, _: usize) -> u64 {
        0
    }
    fn alignment_check(&mut self) -> bool {
        false
    }
    fn pkru(&mut self) -> u32 {
        0
    }
}

impl Vcpu for MockVcpu {
    fn paging(&self) -> Paging {
        let features = Features {
            max_phy_addr: self.max_phy_addr(),
            gigabyte_pages: true,
            pse36: true,
        };
        // CR0 is 0, so paging is off.
        Paging::new(
            Cr0::zeroed(),
            self.cr3(),
            self.cr4,
            Efer::zeroed(),
            features,
        )
    }
    fn cpl(&self) -> u8 {
        self.cpl
    }
    fn instruction_information(&self) -> InsnInfo {
        InsnInfo::zeroed()
            .with_address_size(AddressSize::Bits64)
            .with_segment(SegmentRegister::Ds)
            .with_no_base(true)
            .with_no_index(true)
    }
    fn exit_qualification(&self) -> u64 {
        self.address
    }
    fn linear_width(&self) -> LinearWidth {
        LinearWidth::Bits48
    }
    fn count(&mut self, what: Counter) {
        self.counted |= 1 << what as usize;
    }
    fn skip(&mut self) -> ExitResult {
        self.note(Event::Skipped);
        ExitResult::Resume
    }
    fn raise(&mut self, fault: Exception) {
        self.note(Event::Raised(fault));
    }
    fn give_up(&mut self) -> ExitResult {
        self.note(Event::GaveUp);
        ExitResult::UserSpace
    }
}

impl Translations for MockVcpu {
    fn has_invpcid(&self) -> bool {
        self.has_invpcid
    }
    fn is_shadowed(&self) -> bool {
        !self.ept
    }
    fn pcids(&self) -> [Option<Pcid>; Roots::COUNT] {
        self.pcids
    }
    fn invalidate(&mut self, address: CanonicalGva, roots: Roots) {
        self.note(Event::Invalidated(address.into_raw(), roots));
    }
    fn count_in_kvm(&mut self) {}
    fn request_sync(&mut self) {
        self.note(Event::SyncRequested);
    }
    fn free_roots(&mut self, roots: Roots) {
        self.note(Event::Freed(roots));
    }
    fn request_flush(&mut self) {
        self.note(Event::FlushRequested);
    }
}

impl Tags for MockVcpu {
    fn ept(&self) -> bool {
        self.ept
    }
    fn vpid(&self) -> bool {
        true
    }
    fn vpid01(&self) -> Option<Vpid> {
        Vpid::new(1)
    }
    fn vpid02(&self) -> Option<Vpid> {
        self.vpid02
    }
    fn current_vpid(&self) -> Option<Vpid> {
        self.vpid01()
    }
    fn root(&self) -> Root {
        Root::Unknown
    }
    fn roots(&self) -> [Root; ROOTS] {
        [Root::Unknown; ROOTS]
    }
}

impl Nested for MockVcpu {
    fn tags(&self) -> &impl Tags {
        self
    }
    fn is_in_vmx_operation(&self) -> bool {
        self.vmxon
    }
    fn l1_has_vpid(&self) -> bool {
        self.l1_has_vpid
    }
    fn l1_has_ept(&self) -> bool {
        self.l1_has_ept
    }
    fn l1_caps(&self) -> EptVpidCap {
        self.l1_caps
    }
    fn max_phy_addr(&self) -> MaxPhyAddr {
        MaxPhyAddr::new(40)
    }
    fn rflags(&self) -> Rflags {
        Rflags::from(self.rflags)
    }
    fn set_rflags(&mut self, rflags: Rflags) {
        self.rflags = rflags.into_raw();
    }
    fn set_vm_instruction_error(&mut self, error: VmInsnError) -> bool {
        if self.current_vmcs {
            self.vm_instruction_error = Some(error);
        }
        self.current_vmcs
    }
    fn policy(&self) -> Policy {
        self.policy
    }
    fn issue(&mut self, what: Invalidation) {
        // With preemption enabled the instruction might run on another CPU than the one that was
        // checked.
        if self.with_preemption_disabled {
            self.note(Event::Issued(what));
        }
    }
    fn with_preemption_disabled(&mut self, function: impl FnOnce(&mut Self)) {
        self.with_preemption_disabled = true;
        function(self);
        self.with_preemption_disabled = false;
    }
    fn vmcs02_is_here(&self) -> bool {
        self.with_preemption_disabled && self.vmcs02_is_here
    }
    fn forget_vpid12(&mut self) {
        self.note(Event::ForgotVpid12);
    }
    fn free_l2_roots(&mut self) {
        self.note(Event::FreedL2);
    }
    fn ept12_roots(&self) -> [Option<Eptp>; Roots::COUNT] {
        self.ept12_roots
    }
    fn free_ept12_roots(&mut self, roots: Roots) {
        self.note(Event::FreedEpt12(roots));
    }
}

/// Returns the operand of an invalidation; `None` if the address is not canonical.
pub(super) fn canonical(address: u64) -> Option<CanonicalGva> {
    Gva::new(address).canonical(LinearWidth::Bits48)
}
