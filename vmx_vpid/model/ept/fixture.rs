// SPDX-License-Identifier: GPL-2.0

//! This module has an EPT in memory for tests, and operations on the EPT.

use super::{
    access::*,
    arena::*,
    build::*,
    flush_needed::Change,
    survey::survey,
    walk::*, //
};
use crate::{
    ept::{
        check::*,
        cursor::Tree,
        entry::*,
        Levels, //
    },
    paging::permission::AccessKind,
    vmx::caps::EptVpidCap,
    x86::addr::*, //
};
use kernel::prelude::*;

pub(crate) const KIB_4: u64 = 1 << 12;
pub(crate) const MIB_2: u64 = 1 << 21;
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) const RW: Rights = Rights::READ.or(Rights::WRITE);
pub(crate) const RX: Rights = Rights::READ.or(Rights::EXECUTE);
/// All rights of a page without mode-based execute control.
pub(crate) const RWX: Rights = RW.or(Rights::EXECUTE);

pub(crate) const X: u64 = 1 << 2;
pub(crate) const XU: u64 = 1 << 10;
pub(crate) const A: u64 = 1 << 8;
pub(crate) const D: u64 = 1 << 9;

pub(crate) fn rules(caps: EptVpidCap) -> Rules {
    Rules::new(caps, MaxPhyAddr::new(46), false)
}

/// Returns an EPT that maps nothing, with accessed and dirty flags, on a CPU with all capabilities.
pub(crate) fn empty() -> Result<(Ept, Arena)> {
    let mut arena = Arena::new(16)?;
    let rules = rules(EptVpidCap::from(u64::MAX));
    let ept = Ept::new(rules, Levels::Four, true, &mut arena)?;
    Ok((ept, arena))
}

pub(crate) fn range(start: u64, bytes: u64) -> Result<Range> {
    Range::new(Gpa::new(start), bytes)
}

/// Returns a target in write-back memory.
pub(crate) fn to(hpa: u64, rights: Rights) -> Target {
    Target {
        hpa: Hpa::new(hpa),
        memory_type: MemoryType::WriteBack,
        rights,
    }
}

/// Returns an EPT that maps the first GiB to the GiB at 3 GiB.
pub(crate) fn with_gib(rights: Rights) -> Result<(Ept, Arena)> {
    with_gib_by(rules(EptVpidCap::from(u64::MAX)), rights)
}

/// Does the same as [`with_gib`], by given rules.
pub(crate) fn with_gib_by(rules: Rules, rights: Rights) -> Result<(Ept, Arena)> {
    let mut arena = Arena::new(16)?;
    let ept = Ept::new(rules, Levels::Four, true, &mut arena)?;
    ept.map(&mut arena, range(0, GIB)?, to(3 * GIB, rights))?
        .complete_flush(&mut arena);
    arena.log.clear();
    Ok((ept, arena))
}

pub(crate) fn access(kind: AccessKind) -> Access {
    let stage = Stage::Page(Linear::UNPAGED);
    Access { kind, stage }
}

pub(crate) fn look(ept: Ept, arena: &mut Arena, gpa: u64, kind: AccessKind) -> Outcome {
    walk(
        ept.rules(),
        ept.pointer(),
        arena,
        Gpa::new(gpa),
        access(kind),
    )
}

/// Returns the translation of an address, if a read is permitted.
pub(crate) fn leads_to(ept: Ept, arena: &mut Arena, gpa: u64) -> Option<u64> {
    match look(ept, arena, gpa, AccessKind::Read) {
        Outcome::Translated(found) => Some(found.hpa.into_raw()),
        _ => None,
    }
}

/// Returns the level and the value of the entry at which a walk ends.
pub(crate) fn last(ept: Ept, arena: &mut Arena, gpa: u64) -> (Level, u64) {
    let last = match look(ept, arena, gpa, AccessKind::Read) {
        Outcome::Translated(found) => found.last,
        Outcome::Violation(_, last) | Outcome::Misconfiguration(_, last) => last,
        // No walk ends like this while no other CPU changes entries.
        Outcome::Retry => return (Level::Pml5, 0),
    };
    (last.level, last.entry.into_raw())
}

/// Returns the number of pages of 1 GiB, 2 MiB and 4 KiB, and the number of tables.
pub(crate) fn count(ept: Ept, arena: &mut Arena) -> ([usize; 3], usize) {
    let mut pages = [0; 3];
    let tables = survey(ept.rules(), ept.pointer(), arena, |level, _, _, slot| {
        if let Slot::Page(_) = slot {
            pages[match level {
                Level::Pdpt => 0,
                Level::Pd => 1,
                _ => 2,
            }] += 1;
        }
    });
    assert_eq!(tables, Ok(arena.used()));
    (pages, arena.used())
}

/// Returns an EPT in the form that [`crate::ept::cursor`] reads.
pub(crate) fn tree(ept: Ept) -> Tree {
    Tree {
        rules: ept.rules(),
        root: ept.pointer().table(),
        levels: ept.pointer().levels(),
    }
}

/// An operation on a range.
pub(crate) type Act = fn(Ept, &mut Arena, Range) -> Result<Change>;

pub(crate) const MAP: Act = |ept, arena, range| ept.map(arena, range, to(GIB, RW));
pub(crate) const MAP_R: Act = |ept, arena, range| ept.map(arena, range, to(GIB, Rights::READ));
pub(crate) const MAP_ELSEWHERE: Act = |ept, arena, range| ept.map(arena, range, to(2 * GIB, RW));
pub(crate) const MAP_UNCACHEABLE: Act = |ept, arena, range| {
    let target = Target {
        memory_type: MemoryType::Uncacheable,
        ..to(GIB, RW)
    };
    ept.map(arena, range, target)
};
pub(crate) const MARK: Act = |ept, arena, range| ept.mark_mmio(arena, range);
pub(crate) const UNMAP: Act = |ept, arena, range| ept.unmap(arena, range);
pub(crate) const PROTECT_R: Act = |ept, arena, range| ept.protect(arena, range, Rights::READ);
pub(crate) const PROTECT_RWX: Act = |ept, arena, range| ept.protect(arena, range, RWX);

/// Returns the address of an entry in the table of a level.
pub(crate) fn locate(ept: Ept, arena: &mut Arena, level: Level, gpa: u64) -> Hpa {
    let gpa = Gpa::new(gpa);
    let mut table = ept.pointer().table();
    let mut at = ept.top();
    while at > level {
        table = Hpa::new(arena.read(at.locate(table, gpa)) & Entry::FRAME_MASK);
        at = at.below().unwrap_or(level);
    }
    level.locate(table, gpa)
}
