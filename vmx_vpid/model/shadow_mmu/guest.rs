// SPDX-License-Identifier: GPL-2.0

//! This module walks a guest's own tables like KVM, to make shadow pages: two to five levels, with
//! entries of 4 or of 8 bytes.
//!
//! Source: the manual's chapter on paging; `walk_addr_generic()` in `mmu/paging_tmpl.h`.

use super::{
    bug::Bug,
    role::{
        Grant,
        Role, //
    },
    Gfn,
    Vm, //
};
use crate::paging::{
    entry::Entry,
    level::{
        EntryWidth,
        ADDRESS, //
    },
    permission::{
        Access,
        AccessKind,
        Cause,
        Control, //
    }, //
};

impl Gfn {
    /// Returns the frame that an entry refers to.
    pub(crate) fn of(entry: Entry) -> Self {
        Self((entry.into_raw() & ADDRESS) >> 12)
    }
}

/// The setup of a guest's paging.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    /// The control registers.
    pub(crate) control: Control,
    /// The number of levels of the tables, 2, 4 or 5; ignored with paging off.
    pub(crate) levels: u8,
    /// CR3.
    pub(crate) cr3: u64,
}

/// The end of a walk through a guest's tables, and the tables on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// The frame of the page of 4 KiB; the guest's page may be larger.
    pub(crate) frame: Gfn,
    /// The access that all entries permit.
    pub(crate) access: Grant,
    /// The level of the last entry: 1 for a page of 4 KiB, 0 with paging off.
    pub(crate) level: u8,
    /// The tables, by level.
    pub(crate) tables: [Gfn; 6],
    /// The access that the entries above each table permit, by the level of the table.
    pub(crate) above: [Grant; 6],
    /// The last entry.
    pub(crate) last: Entry,
}

impl Paging {
    /// Returns the size of an entry.
    fn width(&self) -> EntryWidth {
        if self.control.cr4.physical_address_extension() {
            EntryWidth::Bytes8
        } else {
            EntryWidth::Bytes4
        }
    }

    /// Returns the number of address bits that select an entry.
    fn bits(&self) -> u32 {
        match self.width() {
            EntryWidth::Bytes4 => 10,
            EntryWidth::Bytes8 => 9,
        }
    }

    /// Returns the lowest bit of an address that selects an entry of a level.
    fn shift(&self, level: u8) -> u32 {
        12 + self.bits() * u32::from(level.saturating_sub(1))
    }

    /// Returns the root table.
    pub(crate) fn root(&self) -> Gfn {
        Gfn((self.cr3 & ADDRESS) >> 12)
    }

    /// Returns whether an entry of a level refers to a page.
    fn is_last(&self, entry: Entry, level: u8) -> bool {
        let large = match self.width() {
            EntryWidth::Bytes4 => level == 2 && self.control.cr4.page_size_extensions(),
            EntryWidth::Bytes8 => level == 2 || level == 3,
        };
        level == 1 || large && entry.page_size()
    }

    /// Walks to an address, and checks no permissions.
    ///
    /// The walk ignores reserved bits: no guest here sets a reserved bit.
    pub(crate) fn path(&self, vm: &impl Vm, address: u64) -> Result<Walk, Cause> {
        let mut walk = Walk {
            frame: Gfn(address >> 12),
            access: Grant::ALL,
            level: 0,
            tables: [Gfn(0); 6],
            above: [Grant::ALL; 6],
            last: Entry::from(0),
        };
        if !self.control.cr0.paging() {
            return Ok(walk);
        }
        let mut table = self.root();
        for level in (1..=self.levels.min(5)).rev() {
            walk.tables[usize::from(level)] = table;
            walk.above[usize::from(level)] = walk.access;
            let index = self.index(level, address);
            let entry = vm
                .read(table, index, self.width())
                .ok_or(Cause::NotPresent)?;
            if !entry.present() {
                return Err(Cause::NotPresent);
            }
            walk.access = walk.access.and(Grant::of(entry));
            if self.is_last(entry, level) {
                let span = (1 << (self.shift(level) - 12)) - 1;
                walk.frame = Gfn(Gfn::of(entry).0 & !span | address >> 12 & span);
                (walk.level, walk.last) = (level, entry);
                return Ok(walk);
            }
            table = Gfn::of(entry);
        }
        Err(Cause::NotPresent)
    }

    /// Returns the index of an address's entry in a table of a level.
    fn index(&self, level: u8, address: u64) -> usize {
        // CAST: The masked value has at most ten bits.
        (address >> self.shift(level) & ((1 << self.bits()) - 1)) as usize
    }

    /// Checks that the entries permit an access; with paging off, every access is permitted.
    fn check(&self, walk: &Walk, access: Access) -> Result<(), Cause> {
        // RFLAGS.AC is clear, and there are no protection keys.
        let check = || {
            self.control
                .check(walk.access.rights(), 0, access, false, 0)
        };
        if self.control.cr0.paging() {
            check()
        } else {
            Ok(())
        }
    }

    /// Walks for an access, and sets accessed and dirty flags; the result permits writes only if
    /// the dirty flag is set.
    pub(crate) fn walk(
        &self,
        vm: &mut impl Vm,
        address: u64,
        access: Access,
    ) -> Result<Walk, Cause> {
        let mut walk = self.path(vm, address)?;
        self.check(&walk, access)?;
        if walk.level == 0 {
            return Ok(walk);
        }
        let write = access.kind == AccessKind::Write;
        for level in walk.level..=self.levels.min(5) {
            let table = walk.tables[usize::from(level)];
            let index = self.index(level, address);
            let entry = vm
                .read(table, index, self.width())
                .ok_or(Cause::NotPresent)?;
            let dirty = write && level == walk.level || entry.dirty();
            let new = entry.with_accessed(true).with_dirty(dirty);
            if new.into_raw() != entry.into_raw() {
                vm.write(table, index, self.width(), new);
            }
            if level == walk.level {
                walk.last = new;
            }
        }
        let dirty = walk.last.dirty() || vm.has(Bug::DirtyNotAsked);
        walk.access = walk.access.write_if(dirty);
        Ok(walk)
    }

    /// Returns the frame of an access, if the guest's tables permit the access in their current
    /// state.
    pub(crate) fn allows(&self, vm: &impl Vm, address: u64, access: Access) -> Option<Gfn> {
        let walk = self.path(vm, address).ok()?;
        let write = access.kind == AccessKind::Write;
        let used = walk.level == 0 || walk.last.accessed() && (walk.last.dirty() || !write);
        self.check(&walk, access).ok()?;
        used.then_some(walk.frame)
    }
}

/// Returns the guest's entry that an entry of a page of the lowest level is made from: the index in
/// the guest's table, and the size of an entry.
pub(super) fn place(role: Role, index: usize) -> (usize, EntryWidth) {
    if role.has_4_byte_gpte {
        (index + usize::from(role.quadrant) * 512, EntryWidth::Bytes4)
    } else {
        (index, EntryWidth::Bytes8)
    }
}

/// Returns the entries of a page that are made from the guest's entry at a byte offset: the first
/// entry, and the number of entries.  `None` if another page has these entries:
/// `get_written_sptes()`.
pub(super) fn written(role: Role, offset: usize) -> Option<(usize, usize)> {
    if !role.has_4_byte_gpte {
        return Some((offset / 8, 1));
    }
    // An entry of the guest's directory maps 4 MiB, and KVM's entry maps 2 MiB.
    let count = if role.level == 2 { 2 } else { 1 };
    let place = offset / 4 * count;
    (place / 512 == usize::from(role.quadrant)).then_some((place % 512, count))
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_shadow_guest)]
mod tests {
    use super::*;

    fn role(level: u32, quadrant: u32) -> Role {
        Role::from_raw(level | 1 << 4 | quadrant << 5)
    }

    #[test]
    fn each_guest_entry_has_its_shadow_entries() {
        // Four pages of 512 entries shadow a directory of 1024 entries, two entries for each;
        // two pages shadow a page table.
        for (level, quadrant, offset, wanted) in [
            (2, 0, 0, Some((0, 2))),
            (2, 0, 255 * 4, Some((510, 2))),
            (2, 1, 255 * 4, None),
            (2, 1, 256 * 4, Some((0, 2))),
            (2, 3, 1023 * 4, Some((510, 2))),
            (2, 2, 1023 * 4, None),
            (1, 0, 511 * 4, Some((511, 1))),
            (1, 1, 511 * 4, None),
            (1, 1, 512 * 4, Some((0, 1))),
            (1, 1, 1023 * 4 + 3, Some((511, 1))),
        ] {
            assert_eq!(written(role(level, quadrant), offset), wanted);
        }
        assert_eq!(written(Role::from_raw(1), 4095), Some((511, 1)));
        assert_eq!(place(role(1, 1), 5), (517, EntryWidth::Bytes4));
        assert_eq!(place(Role::from_raw(1), 5), (5, EntryWidth::Bytes8));
    }
}
