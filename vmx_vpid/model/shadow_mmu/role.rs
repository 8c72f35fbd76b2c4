// SPDX-License-Identifier: GPL-2.0

//! This module defines the role of a shadow page.
//!
//! Several pages may shadow one guest table at once, each for another use: as a table of another
//! level, below entries with other rights, under other control registers.  Two pages are the same
//! only if guest table and whole role are equal.
//!
//! Source: `union kvm_mmu_page_role`; `kvm_calc_cpu_role()`, `init_kvm_shadow_mmu()` and
//! `kvm_mmu_child_role()` in `mmu/mmu.c`.

use crate::paging::{
    entry::Entry,
    permission::{
        Control,
        Rights, //
    }, //
};

/// The access that entries permit, as in KVM's `ACC_*_MASK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Reads; always permitted, except in an EPT.
    pub(crate) read: bool,
    /// Writes.
    pub(crate) write: bool,
    /// Accesses of user mode.
    pub(crate) user: bool,
    /// Fetches.
    pub(crate) execute: bool,
}

impl Grant {
    /// Everything: `ACC_ALL`.
    pub(crate) const ALL: Self = Self {
        read: true,
        write: true,
        user: true,
        execute: true,
    };

    /// Returns the access that an entry of a page table permits.
    pub(crate) fn of(entry: Entry) -> Self {
        Self {
            read: entry.present(),
            write: entry.writable(),
            user: entry.user(),
            execute: !entry.no_execute(),
        }
    }

    /// Returns the access that both permit.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            user: self.user && other.user,
            execute: self.execute && other.execute,
        }
    }

    /// Returns the same access, with writes only if a condition holds.
    pub(crate) fn write_if(self, condition: bool) -> Self {
        Self {
            write: self.write && condition,
            ..self
        }
    }

    /// Returns the access as the rights that a permission check takes.
    pub(crate) fn rights(self) -> Rights {
        Rights::from(0)
            .with_writable(self.write)
            .with_user(self.user)
            .with_executable(self.execute)
    }

    /// Returns the four bits of KVM's access mask.
    fn into_raw(self) -> u32 {
        u32::from(self.read)
            | u32::from(self.write) << 1
            | u32::from(self.user) << 2
            | u32::from(self.execute) << 3
    }

    /// Makes an access from KVM's four bits.
    fn from_raw(raw: u32) -> Self {
        Self {
            read: raw & 1 != 0,
            write: raw & 2 != 0,
            user: raw & 4 != 0,
            execute: raw & 8 != 0,
        }
    }
}

/// The role of a shadow page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    /// The level, 1 for a page table.
    pub(crate) level: u8,
    /// The guest's entries have 4 bytes: 32-bit paging.
    pub(crate) has_4_byte_gpte: bool,
    /// With entries of 4 bytes: the quarter of the guest's directory, or the half of the guest's
    /// page table, that the page shadows, from 0 on; otherwise 0.
    pub(crate) quadrant: u8,
    /// The page shadows no table: it maps memory, below a large page of the guest's or with the
    /// guest's paging off.
    pub(crate) direct: bool,
    /// The access that the entries above permit.
    pub(crate) access: Grant,
    /// EFER.NX.
    pub(crate) efer_nx: bool,
    /// CR0.WP.
    pub(crate) cr0_wp: bool,
    /// CR4.SMAP while CR0.WP is clear.
    pub(crate) smap_andnot_wp: bool,
    /// Entries have no accessed and dirty flags.
    pub(crate) ad_disabled: bool,
    /// The page is for L2.
    pub(crate) guest_mode: bool,
    /// The page is above all tables of a guest that has fewer levels.
    pub(crate) passthrough: bool,
    /// CR4.SMEP; in an EPT, mode-based execute control.
    pub(crate) cr4_smep: bool,
    /// The address space: 1 in system-management mode, 0 otherwise.
    pub(crate) smm: u8,
}

impl Role {
    /// The smallest number of levels of KVM's own tables.
    const LEAST: u8 = 3;

    /// Returns the role for a guest's registers and state: `kvm_calc_cpu_role()`.
    ///
    /// `level` is the number of levels of the guest's paging, 2 to 5; ignored with paging off.
    pub(crate) fn of_guest(control: &Control, level: u8, smm: bool, guest_mode: bool) -> Self {
        let none = Self {
            level: 0,
            has_4_byte_gpte: false,
            quadrant: 0,
            direct: true,
            access: Grant::ALL,
            efer_nx: false,
            cr0_wp: false,
            smap_andnot_wp: false,
            ad_disabled: false,
            guest_mode,
            passthrough: false,
            cr4_smep: false,
            smm: u8::from(smm),
        };
        if !control.cr0.paging() {
            return none;
        }
        let cr0_wp = control.cr0.write_protect();
        Self {
            level,
            has_4_byte_gpte: !control.cr4.physical_address_extension(),
            direct: false,
            efer_nx: control.efer.no_execute(),
            cr0_wp,
            smap_andnot_wp: control.cr4.smap() && !cr0_wp,
            cr4_smep: control.cr4.smep(),
            ..none
        }
    }

    /// Returns the role of the root that a guest of this role runs on, with EPT off:
    /// `init_kvm_shadow_mmu()`.
    pub(crate) fn root(self) -> Self {
        Self {
            level: self.level.max(Self::LEAST),
            efer_nx: true,
            ..self
        }
    }

    /// Returns the role of a root's page: the only page, or one of four if the CPU walks three
    /// levels.
    pub(crate) fn of_root_page(self, quadrant: u8) -> Self {
        Self {
            level: if self.has_pae_root() { 2 } else { self.level },
            quadrant: if self.has_4_byte_gpte { quadrant } else { 0 },
            ..self
        }
    }

    /// Returns whether a root of this role has four pages, one for each GiB.
    pub(crate) fn has_pae_root(self) -> bool {
        self.level == Self::LEAST
    }

    /// Returns the role of the page below an entry: `kvm_mmu_child_role()`.
    pub(crate) fn child(self, index: usize, direct: bool, access: Grant) -> Self {
        Self {
            level: self.level.saturating_sub(1),
            access,
            direct,
            passthrough: false,
            // CAST: The masked value has one bit.
            quadrant: if self.has_4_byte_gpte {
                (index & 1) as u8
            } else {
                self.quadrant
            },
            ..self
        }
    }

    /// Returns whether a page may be synchronised while a root of another role is in use:
    /// `kvm_sync_page_check()`.
    ///
    /// Level, access and quadrant may differ: they depend on the place of the page below a root.
    pub(crate) fn is_of_context(self, root: Self) -> bool {
        let alike = Self {
            level: root.level,
            access: root.access,
            quadrant: root.quadrant,
            passthrough: root.passthrough,
            ..self
        };
        !self.direct && alike == root
    }

    /// Returns whether the page is made from entries of the guest's: `sp_has_gptes()`.
    pub(crate) fn has_gptes(self) -> bool {
        !self.direct && !self.passthrough
    }

    /// Returns KVM's value of the role.
    pub(crate) fn into_raw(self) -> u32 {
        u32::from(self.level & 0xf)
            | u32::from(self.has_4_byte_gpte) << 4
            | u32::from(self.quadrant & 3) << 5
            | u32::from(self.direct) << 7
            | self.access.into_raw() << 8
            | u32::from(self.efer_nx) << 13
            | u32::from(self.cr0_wp) << 14
            | u32::from(self.smap_andnot_wp) << 15
            | u32::from(self.ad_disabled) << 16
            | u32::from(self.guest_mode) << 17
            | u32::from(self.passthrough) << 18
            | u32::from(self.cr4_smep) << 20
            | u32::from(self.smm) << 24
    }

    /// Makes a role from KVM's value, without the bits that are not part of the key: `invalid`, and
    /// the bit for trust domains.
    pub(crate) fn from_raw(raw: u32) -> Self {
        let bit = |number: u32| raw >> number & 1 != 0;
        Self {
            // CAST: The masked value has four bits.
            level: (raw & 0xf) as u8,
            has_4_byte_gpte: bit(4),
            // CAST: The masked value has two bits.
            quadrant: (raw >> 5 & 3) as u8,
            direct: bit(7),
            access: Grant::from_raw(raw >> 8),
            efer_nx: bit(13),
            cr0_wp: bit(14),
            smap_andnot_wp: bit(15),
            ad_disabled: bit(16),
            guest_mode: bit(17),
            passthrough: bit(18),
            cr4_smep: bit(20),
            // CAST: The shifted value has eight bits.
            smm: (raw >> 24) as u8,
        }
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_shadow_role)]
mod tests {
    use super::*;
    use crate::x86::control_regs::{
        Cr0,
        Cr4,
        Efer, //
    };

    fn long() -> Control {
        Control {
            cr0: Cr0::from(0).with_paging(true).with_write_protect(true),
            cr4: Cr4::from(0).with_physical_address_extension(true),
            efer: Efer::from(0).with_long_mode_active(true),
        }
    }

    fn legacy() -> Control {
        Control {
            cr4: Cr4::from(0),
            efer: Efer::from(0),
            ..long()
        }
    }

    /// The bits of KVM's role that are part of the key: all but `invalid`, `is_mirror` and three
    /// unused bits.
    const KEY: u32 = !(1 << 12 | 1 << 19 | 7 << 21);

    #[test]
    fn each_bit_of_kvms_role_is_kept() {
        for bit in 0..32 {
            let raw = 1 << bit;
            assert_eq!(Role::from_raw(raw).into_raw(), raw & KEY);
        }
        assert_eq!(Role::from_raw(u32::MAX).into_raw(), KEY);
    }

    #[test]
    fn roles_are_equal_only_if_all_bits_are() {
        let role = Role::of_guest(&long(), 4, false, false);
        for bit in (0..32).filter(|bit| KEY >> bit & 1 != 0) {
            assert!(Role::from_raw(role.into_raw() ^ 1 << bit) != role);
        }
    }

    #[test]
    fn registers_determine_the_role() {
        let role = |control: Control| Role::of_guest(&control, 4, false, false);
        let usual = role(long());
        assert!(usual.cr0_wp && !usual.has_4_byte_gpte && !usual.direct);
        let cr0 = long().cr0.with_write_protect(false);
        let cr4 = long().cr4.with_smap(true);
        assert!(!role(Control { cr4, ..long() }).smap_andnot_wp);
        assert!(!role(Control { cr0, ..long() }).smap_andnot_wp);
        assert!(role(Control { cr0, cr4, ..long() }).smap_andnot_wp);
        let cr4 = long().cr4.with_smep(true);
        assert!(role(Control { cr4, ..long() }).cr4_smep);
        let efer = long().efer.with_no_execute(true);
        assert!(role(Control { efer, ..long() }).efer_nx && !usual.efer_nx);
        // KVM's own tables always use NX.
        assert_eq!(role(Control { efer, ..long() }).root(), usual.root());
        let cr0 = Cr0::from(0);
        let off = role(Control { cr0, ..long() });
        assert!(off.direct && !off.cr0_wp && off.root().level == 3);
        assert_eq!(Role::of_guest(&long(), 5, true, true).root().level, 5);
        assert!(Role::of_guest(&long(), 4, true, false) != usual);
        assert!(Role::of_guest(&long(), 4, false, true) != usual);
    }

    #[test]
    fn quadrants_are_bits_of_the_address() {
        let root = Role::of_guest(&legacy(), 2, false, false).root();
        assert!(root.has_pae_root() && root.has_4_byte_gpte);
        for quadrant in 0..4 {
            let directory = root.of_root_page(quadrant);
            assert_eq!((directory.level, directory.quadrant), (2, quadrant));
            for index in [0, 1, 510, 511] {
                let table = directory.child(index, false, Grant::ALL);
                assert_eq!((table.level, usize::from(table.quadrant)), (1, index & 1));
                assert!(table.is_of_context(root));
            }
        }
        let long = Role::of_guest(&long(), 4, false, false).root();
        assert_eq!(long.of_root_page(3), long);
        assert_eq!(long.child(511, false, Grant::ALL).quadrant, 0);
    }

    #[test]
    fn a_child_belongs_to_its_context_unless_it_is_direct() {
        let root = Role::of_guest(&long(), 4, false, false).root();
        let access = Grant::ALL.write_if(false);
        let child = root.child(1, false, access);
        assert!(child.is_of_context(root) && child.has_gptes());
        assert_eq!((child.level, child.access), (3, access));
        let direct = root.child(1, true, access);
        assert!(!direct.is_of_context(root) && !direct.has_gptes());
        for bit in [4, 13, 14, 15, 16, 17, 20, 24] {
            assert!(!child.is_of_context(Role::from_raw(root.into_raw() ^ 1 << bit)));
        }
    }
}
