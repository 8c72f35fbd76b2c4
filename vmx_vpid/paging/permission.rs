// SPDX-License-Identifier: GPL-2.0

//! This module decides what the entries of a walk permit.
//!
//! The decision comes at the end of the walk.  The decision depends on the common rights of all
//! entries, on control registers, and on two registers that are read only where they matter:
//! RFLAGS.AC and PKRU.
//! Source: the manual's chapter on paging, "Access Rights" and "Page-Fault Exceptions".

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

/// An access to memory, with the properties that permissions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// The kind.
    pub(crate) kind: AccessKind,
    /// Whether the access is in user mode, by CPL.
    ///
    /// A supervisor access is explicit, in the sense of SMAP: this type does not describe the CPU's
    /// implicit accesses to its tables.
    pub(crate) user: bool,
}

bitfield! {
    /// The common rights of the entries of a walk.
    ///
    /// Each bit is at the same place as in an [`Entry`].
    pub(crate) struct Rights(u64) {
        /// Each entry permits writes.
        1:1     writable => bool;
        /// Each entry permits user-mode accesses: the page is a user page.
        2:2     user => bool;
        /// Each entry has its accessed flag set.
        5:5     accessed => bool;
        /// Each entry permits fetches; the bit is the inverse of `XD`.
        63:63   executable => bool;
    }
}

impl Rights {
    /// The rights before the first entry.
    pub(crate) const ALL: Self = Self::from_raw(u64::MAX);

    /// Returns the rights that remain after one more entry.
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
        /// Whether the protection key forbids the access, with or without other reasons.
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
    /// Returns whether RFLAGS.AC matters: for a supervisor's data access to a user page, with SMAP.
    #[inline]
    pub(crate) fn asks_ac(&self, rights: Rights, access: Access) -> bool {
        rights.user() && !access.user && access.kind != AccessKind::Fetch && self.cr4.smap()
    }

    /// Returns whether PKRU matters: for a data access to a user page, in long mode with CR4.PKE.
    #[inline]
    pub(crate) fn asks_pkru(&self, rights: Rights, access: Access) -> bool {
        rights.user()
            && access.kind != AccessKind::Fetch
            && self.cr4.protection_keys()
            && self.efer.long_mode_active()
    }

    /// Decides on an access to a page.
    ///
    /// The result depends on `ac` and `pkru` only if [`Self::asks_ac()`] and [`Self::asks_pkru()`]
    /// return true.  This function does not test EFER.NXE: with EFER.NXE clear, XD is a reserved
    /// bit, and a walk that finds it set ends before this check.
    #[inline]
    pub(crate) fn check(
        &self,
        rights: Rights,
        key: u64,
        access: Access,
        ac: bool,
        pkru: u32,
    ) -> Result<(), Cause> {
        // If CR0.WP is clear, a supervisor may write to read-only pages, and WD of a key has no
        // effect.
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
        // PKRU has two bits for each key: AD forbids every data access, WD forbids writes.
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
        // If the CPU cannot forbid fetches, the error code reports a fetch as a read.
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

    /// One combination of all that permissions depend on, except protection keys.
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
        /// Returns all rows.
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

        /// Returns the control registers; with `keys`, in long mode with protection keys.
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

        /// Returns whether the access is permitted, by the manual's list.
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

    /// Returns whether a protection key forbids the access, by the manual's list.
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
    fn permissions_follow_the_manual_without_protection_keys() {
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
    fn permissions_follow_the_manual_with_every_protection_key() {
        for key in 0..16 {
            // `bits` is AD and WD of the key; all other keys forbid nothing, and then everything.
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
    fn protection_keys_need_cr4_pke_and_long_mode() {
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
    fn ac_and_pkru_have_no_effect_unless_asked_for() {
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
    fn page_faults_have_the_error_codes_of_the_manual() {
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
