// SPDX-License-Identifier: GPL-2.0

//! This module walks an EPT by the tables of the manual's chapter on the extended page-table
//! mechanism, bit by bit.

use super::bit;
use vmx_vpid::harness::ept_walk::{
    Access,
    End,
    Setup,
    Stage,
    Tables, //
};

/// Returns whether any of the bits `high` to `low` of a value is set.
fn any(value: u64, high: u32, low: u32) -> bool {
    (low..=high).any(|number| bit(value, number))
}

/// Returns the bits `high` to `low` of a value, in their places.
fn only(value: u64, high: u32, low: u32) -> u64 {
    (low..=high)
        .filter(|&number| bit(value, number))
        .fold(0, |bits, number| bits | 1 << number)
}

/// Returns whether an entry of a level, 5 to 1, is misconfigured.
fn misconfigured(setup: Setup, entry: u64, level: u32) -> bool {
    let (read, write) = (bit(entry, 0), bit(entry, 1));
    let fetch = bit(entry, 2) || setup.mbec && bit(entry, 10);
    if write && !read {
        return true;
    }
    if fetch && !read && !bit(setup.caps, 0) {
        return true;
    }
    if setup.width < 52 && any(entry, 51, setup.width) {
        return true;
    }
    let large = match level {
        1 => return wrong_type(entry),
        2 => bit(entry, 7) && bit(setup.caps, 16),
        3 => bit(entry, 7) && bit(setup.caps, 17),
        _ => false,
    };
    if !large {
        return any(entry, 7, 3);
    }
    let lowest = if level == 2 { 20 } else { 29 };
    any(entry, lowest, 12) || wrong_type(entry)
}

/// Returns whether the memory type of an entry is invalid.
fn wrong_type(entry: u64) -> bool {
    matches!(entry >> 3 & 7, 2 | 3 | 7)
}

/// Walks to a guest-physical address.
pub fn walk(setup: Setup, tables: &mut impl Tables, gpa: u64, access: Access) -> End {
    let top = if setup.five { 5 } else { 4 };
    let table_access = access.stage == Stage::Table;
    let read = !access.write && !access.fetch || table_access;
    let write = access.write || table_access && setup.accessed_dirty;
    let fetch = access.fetch && !table_access;
    let user = matches!(access.stage, Stage::Page { user: true, .. });
    let violation = |granted: u64, references| {
        let mut bits = vec![(0, read), (1, write), (2, fetch)];
        bits.extend([
            (3, bit(granted, 0)),
            (4, bit(granted, 1)),
            (5, bit(granted, 2)),
        ]);
        bits.push((6, setup.mbec && bit(granted, 10)));
        bits.push((7, access.stage != Stage::Physical));
        if let Stage::Page {
            user,
            writable,
            no_execute,
        } = access.stage
        {
            bits.push((8, true));
            if bit(setup.caps, 22) {
                bits.extend([(9, user), (10, writable), (11, no_execute)]);
            }
        }
        let qualification = bits
            .into_iter()
            .filter(|&(_, set)| set)
            .fold(0, |bits, (number, _)| bits | 1 << number);
        End::Violation {
            qualification,
            references,
        }
    };
    if any(gpa, 63, 12 + 9 * top) {
        return violation(0, 0);
    }
    let mut granted = u64::MAX;
    let mut table = only(setup.root, 51, 12);
    let mut used = Vec::new();
    for level in (1..=top).rev() {
        let low = 12 + 9 * (level - 1);
        let at = table + (only(gpa, low + 8, low) >> low) * 8;
        let entry = tables.read(at);
        used.push((at, entry));
        let references = used.len();
        let present = any(entry, 2, 0) || setup.mbec && bit(entry, 10);
        if !present {
            return violation(0, references);
        }
        if misconfigured(setup, entry, level) {
            return End::Misconfiguration { references };
        }
        granted &= entry;
        if level > 1 && !bit(entry, 7) {
            table = only(entry, 51, 12);
            continue;
        }
        let fetched = if user && setup.mbec {
            bit(granted, 10)
        } else {
            bit(granted, 2)
        };
        let allowed =
            (!read || bit(granted, 0)) && (!write || bit(granted, 1)) && (!fetch || fetched);
        if !allowed {
            return violation(granted, references);
        }
        if setup.accessed_dirty {
            for (number, &(at, entry)) in used.iter().enumerate() {
                let last = number + 1 == references;
                let marked = entry | 1 << 8 | if last && write { 1 << 9 } else { 0 };
                if marked != entry && !tables.exchange(at, entry, marked) {
                    return End::Retry;
                }
            }
        }
        let mbec = if setup.mbec { only(granted, 10, 10) } else { 0 };
        return End::Page {
            hpa: only(entry, 51, low) | only(gpa, low - 1, 0),
            rights: only(granted, 2, 0) | mbec,
            memory_type: (entry >> 3 & 7) as u8,
            references,
        };
    }
    unreachable!("an entry of the lowest level refers to a page");
}
