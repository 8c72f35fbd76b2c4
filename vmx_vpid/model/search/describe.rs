// SPDX-License-Identifier: GPL-2.0

//! This module describes steps and errors in sentences, for counterexamples.

use crate::model::{
    cpu::tlb_entry::{
        Kind, //
        TlbEntry,
    },
    guest::control_regs::Bit,
    machine::{
        Stale,
        Wrong, //
    },
    step::{
        Op,
        Step, //
    }, //
};
use core::fmt;

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Access { page, write: false } => write!(f, "reads page {page}"),
            Self::Access { page, write: true } => write!(f, "writes page {page}"),
            Self::Edit {
                table,
                index,
                entry,
            } => write!(
                f,
                "writes {entry:#x} to entry {index} of its frame {}",
                table.0
            ),
            Self::Invlpg(page) => write!(f, "executes INVLPG of page {page}"),
            Self::EmulatedInvlpg(page) => {
                write!(f, "has INVLPG of page {page} executed by KVM's emulator")
            }
            Self::Invpcid {
                kind: 0,
                pcid,
                page,
            } => write!(f, "executes INVPCID of page {page} in PCID {pcid}"),
            Self::Invpcid { kind: 1, pcid, .. } => write!(f, "executes INVPCID of PCID {pcid}"),
            Self::Invpcid { kind: 2, .. } => write!(f, "executes INVPCID of everything"),
            Self::Invpcid { .. } => write!(f, "executes INVPCID of everything but globals"),
            Self::MovCr3 { registers, keep } => write!(
                f,
                "loads CR3 with frame {} and PCID {}{}",
                registers.table().0,
                registers.pcid,
                if keep { ", keeping translations" } else { "" }
            ),
            Self::TogglePge => write!(f, "toggles CR4.PGE"),
            Self::Toggle(bit) => write!(
                f,
                "toggles {}",
                match bit {
                    Bit::Paging => "CR0.PG",
                    Bit::Pcide => "CR4.PCIDE",
                    Bit::Pae => "CR4.PAE",
                    Bit::Smep => "CR4.SMEP",
                }
            ),
            Self::Init => write!(f, "gets an INIT"),
            Self::Smm => write!(f, "enters or leaves system-management mode"),
            Self::VmxOn => write!(f, "executes VMXON"),
            Self::VmxOff => write!(f, "executes VMXOFF"),
            Self::EnterL2(l2) | Self::BounceL2(l2) => {
                let back = if let Self::BounceL2(_) = self {
                    " and exits before L2 runs,"
                } else {
                    ""
                };
                write!(f, "enters L2{back} with vpid12 {}", l2.vpid12)?;
                match l2.ept12 {
                    None => write!(f, " and no EPT"),
                    Some(it) if it.accessed_dirty => {
                        write!(f, " and EPT {} with accessed and dirty flags", it.number)
                    }
                    Some(it) => write!(f, " and EPT {}", it.number),
                }
            }
            Self::LeaveL2 => write!(f, "leaves L2"),
            Self::Vmfunc(ept12) => {
                write!(f, "turns to EPT {} by VMFUNC", ept12.number)?;
                if ept12.accessed_dirty {
                    write!(f, ", with accessed and dirty flags")?;
                }
                Ok(())
            }
            Self::Invvpid {
                kind: 0,
                vpid12,
                page,
            } => write!(f, "executes INVVPID of page {page} in vpid12 {vpid12}"),
            Self::Invvpid { kind: 2, .. } => write!(f, "executes INVVPID of all"),
            Self::Invvpid { kind, vpid12, .. } => {
                let globals = if kind == 3 { ", retaining globals" } else { "" };
                write!(f, "executes INVVPID of vpid12 {vpid12}{globals}")
            }
            Self::Invept { all: true, .. } => write!(f, "executes INVEPT of all"),
            Self::Invept { ept12, .. } => write!(
                f,
                "executes INVEPT of EPT {}{}",
                ept12.number,
                if ept12.accessed_dirty {
                    ", by a pointer with accessed and dirty flags"
                } else {
                    ""
                }
            ),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Create(vcpu) => write!(f, "vCPU {vcpu} of VM {} is created", vcpu / 2),
            Self::Destroy(vcpu) => write!(f, "vCPU {vcpu} of VM {} is destroyed", vcpu / 2),
            Self::Guest {
                vcpu,
                cpu,
                patience,
                op,
            } => {
                write!(f, "vCPU {vcpu} on CPU {cpu} {op}")?;
                if patience != 0 {
                    write!(f, "; its task migrates after {patience} preemption points")?;
                }
                Ok(())
            }
            Self::Relocate { vm, gfn } => write!(f, "the host moves frame {gfn} of VM {vm}"),
            Self::Protect { vm, gfn } => {
                write!(f, "the host protects frame {gfn} of VM {vm} against writes")
            }
            Self::Clean { vm, gfn } => {
                write!(
                    f,
                    "the host clears the dirty flags of frame {gfn} of VM {vm}"
                )
            }
            Self::Split(vm) => write!(f, "the host splits the large pages of VM {vm}"),
            Self::Merge { vm, level } => {
                write!(f, "the host maps VM {vm} by pages of level {level}")
            }
            Self::ZapAll(vm) => write!(f, "the host zaps all tables of VM {vm}"),
            Self::Shrink(vm) => write!(f, "the host frees tables of VM {vm} that are not in use"),
            Self::Forget { cpu, .. } => write!(f, "CPU {cpu} drops some entries"),
            Self::Replug(cpu) => write!(
                f,
                "CPU {cpu} goes offline, runs another hypervisor, and goes online"
            ),
            Self::Transition => write!(f, "an attach or detach begins: C and Rust serve"),
            Self::Attached => write!(f, "Rust serves"),
            Self::Detached => write!(f, "C serves"),
        }
    }
}

impl fmt::Display for TlbEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (key.kind, key.level) {
            (Kind::Physical, 0) => write!(f, "guest-physical mapping of frame {}", key.first)?,
            (Kind::Physical, level) => {
                write!(
                    f,
                    "EPT entry that leads frame {} to level {level}",
                    key.first
                )?;
            }
            (Kind::Linear, 0) => write!(f, "linear mapping of page {}", key.first)?,
            (Kind::Combined, 0) => write!(f, "combined mapping of page {}", key.first)?,
            (_, level) => {
                write!(
                    f,
                    "paging-structure entry that leads page {} to level {level}",
                    key.first
                )?;
            }
        }
        if let Some(vpid) = key.vpid {
            write!(f, ", VPID {}", vpid.into_raw())?;
        }
        if let Some(ep4ta) = key.ep4ta {
            write!(f, ", {ep4ta:?}")?;
        }
        if key.global {
            write!(f, ", global")?;
        }
        write!(
            f,
            ": to frame {} at {:#x}, read at time {}",
            self.gfn.0, self.hfn.0, self.time
        )
    }
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "KVM's tables no longer agree with the entry",
            Self::Guest => {
                "the guest's tables no longer agree with the entry, \
                 and the guest invalidated the entry"
            }
            Self::Foreign => "the entry was read for another guest",
            Self::Nested => {
                "L1's EPT no longer agrees with the entry, and L1 invalidated the entry"
            }
        })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { cpu, entry, how } => {
                write!(f, "entry {entry} of CPU {cpu} could be used: {how}")
            }
            Self::StaleTable { number, how } => {
                write!(f, "KVM's table for {number} could be used: {how}")
            }
            Self::OtherMode => write!(f, "a guest would run on tables for another mode"),
            Self::Dirty(vpid) => {
                write!(
                    f,
                    "VPID {} was not flushed since the allocation",
                    vpid.into_raw()
                )
            }
            Self::FlushedCpus(vpid) => write!(
                f,
                "VPID {} is recorded as flushed where an earlier holder left an entry",
                vpid.into_raw()
            ),
            Self::Double(vpid) => write!(f, "two vCPUs have VPID {}", vpid.into_raw()),
            Self::FlushFailed => write!(f, "every form of an invalidation failed"),
            Self::NotAllocated => write!(f, "a VPID was freed that was not allocated"),
            Self::Leaked => write!(f, "a VPID is in use that no vCPU holds"),
            Self::WalksDiffer => write!(f, "the two walks through a guest's tables differ"),
            Self::Stuck => write!(f, "a vCPU does not come to run"),
            Self::Memory => write!(f, "the model has no memory left"),
        }
    }
}
