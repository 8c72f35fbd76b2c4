// SPDX-License-Identifier: GPL-2.0

//! This module walks page tables by the manual's chapter on paging.

use super::{
    bit,
    bits,
    is_long, //
};
use vmx_vpid::harness::{
    walk::{
        Access,
        Answer,
        Exchange,
        Features,
        Memory,
        Stop, //
    },
    Exception,
    Registers, //
};

/// The number of walks after which the guest has to retry the access.
const WALKS: usize = 16;

/// 1 MiB.
const MIB: u64 = 1024 * 1024;

/// A level of tables: an entry covers 2^`covers` bytes, and a table has `entries` entries.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Level {
    covers: u32,
    entries: u64,
}

/// Returns the levels of the tables in memory, from the top down.
fn levels(registers: &Registers) -> &'static [Level] {
    const fn wide(covers: u32) -> Level {
        let entries = 512;
        Level { covers, entries }
    }
    const fn narrow(covers: u32) -> Level {
        let entries = 1024;
        Level { covers, entries }
    }
    const LONG: [Level; 5] = [wide(48), wide(39), wide(30), wide(21), wide(12)];
    const TWO: [Level; 2] = [narrow(22), narrow(12)];
    match (is_long(registers), bit(registers.cr4, 5)) {
        (true, _) if bit(registers.cr4, 12) => &LONG,
        (true, _) => &LONG[1..],
        (false, true) => &LONG[3..],
        (false, false) => &TWO,
    }
}

/// An entry on the way to a page.
struct Step {
    address: u64,
    size: u32,
    value: u64,
    is_page: bool,
}

/// The bits of a page fault's error code that depend on the tables.
struct Error {
    present: bool,
    reserved: bool,
    key: bool,
}

/// The error of an entry that is not present.
const NOT_PRESENT: Error = Error {
    present: false,
    reserved: false,
    key: false,
};

/// The error of an entry that has a reserved bit set.
const RESERVED: Error = Error {
    present: true,
    reserved: true,
    key: false,
};

/// Returns the page fault for an error.
fn fault(registers: &Registers, address: u64, access: Access, error: Error) -> Stop {
    let smep = bit(registers.cr4, 20);
    let pae_and_nxe = bit(registers.cr4, 5) && bit(registers.efer, 11);
    let bits = [
        error.present,
        access.write,
        access.user,
        error.reserved,
        access.fetch && (smep || pae_and_nxe),
        error.key,
    ];
    let code = (0..).zip(bits).map(|(n, bit)| u32::from(bit) << n).sum();
    Stop::Exception(Exception::Page { address, code })
}

/// Translates a linear address.
///
/// # Errors
///
/// The reason why there is no translation.
pub fn translate(
    registers: &Registers,
    features: &Features,
    memory: &mut impl Memory,
    address: u64,
    access: Access,
) -> Result<u64, Stop> {
    if !bit(registers.cr0, 31) {
        return Ok(bits(address, 31, 0));
    }
    for _ in 0..WALKS {
        let (steps, page) = down(registers, features, memory, address)
            .map_err(|error| fault(registers, address, access, error))?;
        let entries: Vec<u64> = steps.iter().map(|step| step.value).collect();
        permitted(registers, memory, &entries, access)
            .map_err(|error| fault(registers, address, access, error))?;
        match flags(memory, &steps, access) {
            Exchange::NoMemory => return Err(fault(registers, address, access, NOT_PRESENT)),
            Exchange::Changed => {}
            Exchange::Done | Exchange::ReadOnly => return Ok(page),
        }
    }
    Err(Stop::Retry)
}

/// Walks from CR3 to a page; returns the entries on the way, and the physical address.
fn down(
    registers: &Registers,
    features: &Features,
    memory: &mut impl Memory,
    address: u64,
) -> Result<(Vec<Step>, u64), Error> {
    let levels = levels(registers);
    let mut table = bits(registers.cr3, 51, 12) * 4096;
    if levels.len() == 2 {
        if levels[0].entries == 512 {
            // PAE: the CPU holds the entries of the first level.
            let entry = memory.pdpte(bits(address, 31, 30) as usize);
            if !bit(entry, 0) {
                return Err(NOT_PRESENT);
            }
            table = bits(entry, 51, 12) * 4096;
        } else {
            table = bits(registers.cr3, 31, 12) * 4096;
        }
    }
    let mut steps = Vec::new();
    for level in levels {
        let size = (4096 / level.entries) as u32;
        let index = address / 2u64.pow(level.covers) % level.entries;
        let place = table + index * u64::from(size);
        let value = memory.read_entry(place, size).ok_or(NOT_PRESENT)?;
        if !bit(value, 0) {
            return Err(NOT_PRESENT);
        }
        let is_page = is_page(registers, level, value);
        if reserved(registers, features, level, is_page).any(|number| bit(value, number)) {
            return Err(RESERVED);
        }
        steps.push(Step {
            address: place,
            size,
            value,
            is_page,
        });
        if is_page {
            let within = address % 2u64.pow(level.covers);
            let mut page = bits(value, 51, level.covers) * 2u64.pow(level.covers);
            if 2u64.pow(level.covers) == 4 * MIB {
                page = bits(value, 31, 22) * 4 * MIB + bits(value, 20, 13) * 2u64.pow(32);
            }
            return Ok((steps, page + within));
        }
        table = bits(value, 51, 12) * 4096;
    }
    unreachable!("an entry of the last level refers to a page")
}

/// Returns whether an entry refers to a page.
fn is_page(registers: &Registers, level: &Level, value: u64) -> bool {
    match level.covers {
        12 => true,
        // Without CR4.PSE the bit is ignored.
        22 => bit(value, 7) && bit(registers.cr4, 4),
        // In the two highest levels, the bit is reserved.
        21 | 30 => bit(value, 7),
        _ => false,
    }
}

/// Returns the bits of an entry that have to be 0.
fn reserved(
    registers: &Registers,
    features: &Features,
    level: &Level,
    is_page: bool,
) -> impl Iterator<Item = u32> {
    let max = features.max_phy_addr;
    let mut all = Vec::new();
    if level.entries == 1024 {
        if is_page && level.covers == 22 {
            all.push(21);
            // Bit 13 has bit 32 of the address, and so on up to bit 39.
            all.extend(
                (32..40)
                    .filter(|&n| !features.pse36 || n >= max)
                    .map(|n| n - 19),
            );
        }
        return all.into_iter();
    }
    all.extend(max..52);
    if !bit(registers.efer, 11) {
        all.push(63);
    }
    if !is_long(registers) {
        all.extend(52..63);
    }
    match level.covers {
        39 | 48 => all.push(7),
        30 if is_page && features.gigabyte_pages => all.extend(13..30),
        30 if is_page => all.push(7),
        21 if is_page => all.extend(13..21),
        _ => {}
    }
    all.into_iter()
}

/// Checks that the entries on the way permit an access.
fn permitted(
    registers: &Registers,
    memory: &mut impl Memory,
    entries: &[u64],
    access: Access,
) -> Result<(), Error> {
    let write_protect = bit(registers.cr0, 16);
    let (smep, smap) = (bit(registers.cr4, 20), bit(registers.cr4, 21));
    let keys = bit(registers.cr4, 22) && is_long(registers);
    let user_page = entries.iter().all(|&entry| bit(entry, 2));
    let writable = entries.iter().all(|&entry| bit(entry, 1));
    let never_fetched = entries.iter().any(|&entry| bit(entry, 63));
    let data = !access.fetch;

    let mut good = true;
    if access.user && !user_page {
        good = false;
    }
    if access.write && !writable && (access.user || write_protect) {
        good = false;
    }
    if access.fetch && never_fetched {
        good = false;
    }
    if access.fetch && !access.user && user_page && smep {
        good = false;
    }
    if data && !access.user && user_page && smap && !memory.alignment_check() {
        good = false;
    }
    let mut key = false;
    if data && user_page && keys {
        let number = entries.last().map_or(0, |&leaf| bits(leaf, 62, 59)) as u32;
        let pkru = u64::from(memory.pkru());
        let access_disable = bit(pkru, 2 * number);
        let write_disable = bit(pkru, 2 * number + 1);
        key = access_disable || access.write && write_disable && (access.user || write_protect);
    }
    if good && !key {
        return Ok(());
    }
    Err(Error {
        present: true,
        reserved: false,
        key,
    })
}

/// Sets the accessed flags from the top down, and the page's dirty flag for a write.
fn flags(memory: &mut impl Memory, steps: &[Step], access: Access) -> Exchange {
    for step in steps {
        let mut new = step.value;
        if !bit(new, 5) {
            new += 1 << 5;
        }
        if access.write && step.is_page && !bit(new, 6) {
            new += 1 << 6;
        }
        if new != step.value {
            let end = memory.exchange_entry(step.address, step.size, step.value, new);
            if matches!(end, Exchange::Changed | Exchange::NoMemory) {
                return end;
            }
        }
    }
    Exchange::Done
}

/// Reads an operand of 16 bytes.
///
/// # Errors
///
/// The reason why the operand cannot be read.
pub fn read(
    registers: &Registers,
    features: &Features,
    memory: &mut impl Memory,
    address: u64,
    access: Access,
    is_64_bit: bool,
) -> Result<[u8; 16], Stop> {
    // The physical address of each byte; a page is translated once, for the first byte in the page.
    let mut pages: Vec<(u64, u64)> = Vec::new();
    let mut physical = [0; 16];
    for (n, place) in (0..).zip(&mut physical) {
        let mut linear = address.wrapping_add(n);
        if !is_64_bit {
            linear = bits(linear, 31, 0);
        }
        let page = linear / 4096;
        let known = pages.iter().find(|known| known.0 == page);
        let frame = match known {
            Some(&(_, frame)) => frame,
            None => {
                let found = translate(registers, features, memory, linear, access)? / 4096;
                pages.push((page, found));
                found
            }
        };
        *place = frame * 4096 + linear % 4096;
    }
    let mut bytes = [0; 16];
    for (place, byte) in physical.iter().zip(&mut bytes) {
        let mut one = [0];
        match memory.read(*place, &mut one) {
            Answer::Bytes => *byte = one[0],
            Answer::NoMemory => *byte = 0xff,
            Answer::HostFailure => return Err(Stop::HostFailure),
        }
    }
    Ok(bytes)
}
