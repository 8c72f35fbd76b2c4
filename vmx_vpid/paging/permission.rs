// SPDX-License-Identifier: GPL-2.0

//! This module decides what the entries of a walk permit.
//!
//! The decision comes at the end of the walk.  It uses the common rights of all entries, control
//! registers, and two registers that are read only where they matter: RFLAGS.AC and PKRU.
//! Source: the manual's chapter on paging, "Access Rights" and "Page-Exception Exceptions".

use crate::{
    paging::entry::Entry,
    x86::{
        addr::Gva,
        control_regs::{
            Cr0,
            Cr4,
            Efer, //
        },
        exception::{
            Exception,
            PageFaultCode, //
        }, //
    }, //
};
use kernel::bitfield;

/// The kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessKind {
    /// Reads data.
    Read,
    /// Writes data.
    Write,
    /// Fetches instructions.
    Fetch,
}

/// An access to memory, as far as paging tells one from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// The kind.
    pub(crate) kind: AccessKind,
    /// Whether it is an access of user mode, by CPL.
    ///
    /// An access of the supervisor counts as explicit, in the sense of SMAP: the CPU's own accesses
    /// to its tables do not come here.
    pub(crate) user: bool,
}

bitfield! {
    /// The common rights of the entries of a walk.
    ///
    /// Each bit has its place in an [`Entry`].
    pub(crate) struct Rights(u64) {
        /// Each permits writes.
        1:1     writable => bool;
        /// Each permits accesses of user mode: the page is the user's.
        2:2     user => bool;
        /// Each has its accessed flag set.
        5:5     accessed => bool;
        /// Each permits fetches; an entry has this bit the other way round.
        63:63   executable => bool;
    }
}

impl Rights {
    /// The rights before the first entry.
    pub(crate) const ALL: Self = Self::from_raw(u64::MAX);

    /// Returns the rights that remain behind one more entry.
    #[inline]
    pub(crate) const fn through(self, entry: Entry) -> Self {
        Self::from_raw(self.into_raw() & (entry.into_raw() ^ Entry::NO_EXECUTE_MASK))
    }
}

/// The reason why an access has no translation, as in a page fault's error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An entry is not present.
    NotPresent,
    /// An entry has a reserved bit set.
    Reserved,
    /// The access is not permitted.
    Forbidden {
        /// Whether the protection key forbids it, whatever else does.
        key: bool,
    },
}

/// The control registers that permissions depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    /// CR0.
    pub(crate) cr0: Cr0,
    /// CR4.
    pub(crate) cr4: Cr4,
    /// IA32_EFER.
    pub(crate) efer: Efer,
}

impl Control {
    /// Returns whether RFLAGS.AC decides: a supervisor's access to data of the user, under SMAP.
    #[inline]
    pub(crate) fn asks_ac(&self, rights: Rights, access: Access) -> bool {
        rights.user() && !access.user && access.kind != AccessKind::Fetch && self.cr4.smap()
    }

    /// Returns whether PKRU has a say: an access to data of the user, in long mode.
    #[inline]
    pub(crate) fn asks_pkru(&self, rights: Rights, access: Access) -> bool {
        rights.user()
            && access.kind != AccessKind::Fetch
            && self.cr4.protection_keys()
            && self.efer.long_mode_active()
    }

    /// Decides on an access to a page.
    ///
    /// `ac` and `pkru` are looked at only where [`Self::asks_ac()`] and [`Self::asks_pkru()`] say
    /// so.  That a page has its XD bit set without EFER.NXE is not thought of: the bit is reserved
    /// then, and the walk did not get here.
    #[inline]
    pub(crate) fn check(
        &self,
        rights: Rights,
        key: u64,
        access: Access,
        ac: bool,
        pkru: u32,
    ) -> Result<(), Cause> {
        // A supervisor may write to read-only pages, and past a key's WD, unless CR0.WP is set.
        let obeys_read_only = access.user || self.cr0.write_protect();
        let permitted = (rights.user() || !access.user)
            && match access.kind {
                AccessKind::Read => true,
                AccessKind::Write => rights.writable() || !obeys_read_only,
                AccessKind::Fetch => {
                    rights.executable() && (access.user || !rights.user() || !self.cr4.smep())
                }
            }
            && (ac || !self.asks_ac(rights, access));
        // Two bits each: AD forbids every access to data, WD writes.
        let key_forbids = self.asks_pkru(rights, access) && {
            let disabled = u64::from(pkru) >> (key << 1 & 0x1e);
            disabled & 1 != 0
                || disabled & 2 != 0 && access.kind == AccessKind::Write && obeys_read_only
        };
        if permitted && !key_forbids {
            Ok(())
        } else {
            Err(Cause::Forbidden { key: key_forbids })
        }
    }

    /// Builds the page fault of an access that has no translation.
    #[cold]
    pub(crate) fn fault(&self, address: Gva, access: Access, cause: Cause) -> Exception {
        // Where a fetch is no reason for a fault, the error code reports a read.
        let tells_fetch =
            self.cr4.smep() || self.efer.no_execute() && self.cr4.physical_address_extension();
        let code = match cause {
            Cause::NotPresent => PageFaultCode::from_raw(0),
            Cause::Reserved => PageFaultCode::from_raw(0)
                .with_present(true)
                .with_reserved(true),
            Cause::Forbidden { key } => PageFaultCode::from_raw(0)
                .with_present(true)
                .with_protection_key(key),
        };
        Exception::Page {
            address,
            code: code
                .with_write(access.kind == AccessKind::Write)
                .with_user(access.user)
                .with_fetch(access.kind == AccessKind::Fetch && tells_fetch),
        }
    }
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_paging_permission)]
mod tests {
    use super::{
        AccessKind::*,
        *, //
    };

    /// One row of the table of truth values: everything that permissions depend on except
    /// protection keys.
    #[derive(Clone, Copy)]
    struct Row {
        kind: AccessKind,
        user: bool,
        user_page: bool,
        writable: bool,
        executable: bool,
        write_protect: bool,
        smep: bool,
        smap: bool,
        ac: bool,
    }

    impl Row {
        /// All rows.
        fn all() -> impl Iterator<Item = Self> {
            (0..3 << 8).map(|n: u32| Self {
                kind: match n >> 8 {
                    0 => Read,
                    1 => Write,
                    _ => Fetch,
                },
                user: n & 1 != 0,
                user_page: n & 2 != 0,
                writable: n & 4 != 0,
                executable: n & 8 != 0,
                write_protect: n & 16 != 0,
                smep: n & 32 != 0,
                smap: n & 64 != 0,
                ac: n & 128 != 0,
            })
        }

        fn access(self) -> Access {
            Access {
                kind: self.kind,
                user: self.user,
            }
        }

        fn rights(self) -> Rights {
            Rights::from(0)
                .with_user(self.user_page)
                .with_writable(self.writable)
                .with_executable(self.executable)
        }

        /// The registers, in long mode with protection keys or in neither.
        fn control(self, keys: bool) -> Control {
            Control {
                cr0: Cr0::from(0).with_write_protect(self.write_protect),
                cr4: Cr4::from(0)
                    .with_smep(self.smep)
                    .with_smap(self.smap)
                    .with_protection_keys(keys),
                efer: Efer::from(0).with_long_mode_active(keys),
            }
        }

        /// The list of the manual, access by access.
        fn permitted(self) -> bool {
            if self.user {
                return match self.kind {
                    Read => self.user_page,
                    Write => self.user_page && self.writable,
                    Fetch => self.user_page && self.executable,
                };
            }
            match (self.kind, self.user_page) {
                (Read, false) => true,
                (Read, true) => !self.smap || self.ac,
                (Write, false) => !self.write_protect || self.writable,
                (Write, true) if self.smap && !self.ac => false,
                (Write, true) => !self.write_protect || self.writable,
                (Fetch, false) => self.executable,
                (Fetch, true) if self.smep => false,
                (Fetch, true) => self.executable,
            }
        }
    }

    /// Returns whether the manual closes a page with a certain key.
    fn key_forbids(row: Row, key: u64, pkru: u32) -> bool {
        let (ad, wd) = (pkru >> (2 * key) & 1 != 0, pkru >> (2 * key + 1) & 1 != 0);
        match row.kind {
            _ if !row.user_page => false,
            Fetch => false,
            Read => ad,
            Write if row.user => ad || wd,
            Write => ad || wd && row.write_protect,
        }
    }

    #[test]
    fn every_row_of_the_table_without_protection_keys() {
        for row in Row::all() {
            let found = row
                .control(false)
                .check(row.rights(), 5, row.access(), row.ac, u32::MAX);
            let expected = if row.permitted() {
                Ok(())
            } else {
                Err(Cause::Forbidden { key: false })
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn every_row_of_the_table_with_every_protection_key() {
        for key in 0..16 {
            // No bit, either, both; and the same with all other keys closed.
            for bits in 0..4 {
                for others in [0, !(3u32 << (2 * key))] {
                    let pkru = bits << (2 * key) | others;
                    for row in Row::all() {
                        let found =
                            row.control(true)
                                .check(row.rights(), key, row.access(), row.ac, pkru);
                        let closed = key_forbids(row, key, pkru);
                        let expected = if row.permitted() && !closed {
                            Ok(())
                        } else {
                            Err(Cause::Forbidden { key: closed })
                        };
                        assert_eq!(found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn keys_need_both_switches() {
        for row in Row::all() {
            let control = row.control(true);
            for control in [
                Control {
                    cr4: control.cr4.with_protection_keys(false),
                    ..control
                },
                Control {
                    efer: Efer::from(0),
                    ..control
                },
            ] {
                assert!(!control.asks_pkru(row.rights(), row.access()));
                let found = control.check(row.rights(), 0, row.access(), row.ac, u32::MAX);
                assert_eq!(found.is_ok(), row.permitted());
            }
        }
    }

    #[test]
    fn registers_are_read_only_where_they_matter() {
        for row in Row::all() {
            let (control, rights, access) = (row.control(true), row.rights(), row.access());
            let with = |ac, pkru| control.check(rights, 3, access, ac, pkru);
            assert!(control.asks_ac(rights, access) || with(false, 0) == with(true, 0));
            for pkru in [1 << 6, 2 << 6, u32::MAX] {
                let same = with(row.ac, 0) == with(row.ac, pkru);
                assert!(control.asks_pkru(rights, access) || same);
            }
        }
    }

    #[test]
    fn a_page_has_the_rights_common_to_all_entries() {
        const ALL: u64 = 1 << 1 | 1 << 2 | 1 << 5;
        let all = Rights::ALL
            .through(Entry::from(ALL))
            .through(Entry::from(ALL));
        assert!(all.writable() && all.user() && all.accessed() && all.executable());
        for (bit, expected) in [
            (1 << 1, [false, true, true, true]),
            (1 << 2, [true, false, true, true]),
            (1 << 5, [true, true, false, true]),
            (1 << 63, [true, true, true, false]),
        ] {
            let other = Entry::from(ALL ^ bit);
            for rights in [
                Rights::ALL.through(other).through(Entry::from(ALL)),
                Rights::ALL.through(Entry::from(ALL)).through(other),
            ] {
                let found = [
                    rights.writable(),
                    rights.user(),
                    rights.accessed(),
                    rights.executable(),
                ];
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn error_codes_of_page_faults() {
        let address = Gva::new(0x1234_5678);
        let none = Control {
            cr0: Cr0::from(0),
            cr4: Cr4::from(0),
            efer: Efer::from(0),
        };
        let nxe = Efer::from(0).with_no_execute(true);
        let pae = Cr4::from(0).with_physical_address_extension(true);
        let smep = Cr4::from(0).with_smep(true);
        for (control, fetch) in [
            (none, 0),
            (Control { efer: nxe, ..none }, 0),
            (Control { cr4: pae, ..none }, 0),
            (Control { cr4: smep, ..none }, 1 << 4),
            (
                Control {
                    efer: nxe,
                    cr4: pae,
                    ..none
                },
                1 << 4,
            ),
        ] {
            for (cause, base) in [
                (Cause::NotPresent, 0),
                (Cause::Reserved, 1 | 1 << 3),
                (Cause::Forbidden { key: false }, 1),
                (Cause::Forbidden { key: true }, 1 | 1 << 5),
            ] {
                for (kind, bit) in [(Read, 0), (Write, 1 << 1), (Fetch, fetch)] {
                    for (user, user_bit) in [(false, 0), (true, 1 << 2)] {
                        let code = PageFaultCode::from(base | bit | user_bit);
                        let found = control.fault(address, Access { kind, user }, cause);
                        assert_eq!(found, Exception::Page { address, code });
                    }
                }
            }
        }
    }
}
