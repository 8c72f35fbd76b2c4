// SPDX-License-Identifier: GPL-2.0

//! This module walks a guest's page tables for userspace programs.

use super::{
    Exception,
    Registers, //
};
use crate::{
    paging::{
        self,
        level::EntryWidth,
        permission::{
            self,
            AccessKind, //
        },
        walk,
        Paging, //
    },
    x86::addr::{
        Gpa,
        Gva,
        MaxPhyAddr, //
    }, //
};

/// The features of paging in the guest's CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The width of physical addresses.
    pub max_phy_addr: u32,
    /// Pages of 1 GiB.
    pub gigabyte_pages: bool,
    /// Pages of 4 MiB beyond the first 4 GiB.
    pub pse36: bool,
}

/// An access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The access is a write.
    pub write: bool,
    /// The access is a fetch; at most one of `write` and `fetch` is set.
    pub fetch: bool,
    /// The access is a user-mode access.
    pub user: bool,
}

/// The result of an attempt to replace an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// The entry was replaced.
    Done,
    /// The entry had another value.
    Changed,
    /// The entry is in ROM, and cannot be replaced.
    ReadOnly,
    /// The guest has no memory there.
    NoMemory,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The bytes were read.
    Bytes,
    /// The guest has no memory there.
    NoMemory,
    /// The host cannot read the memory.
    HostFailure,
}

/// A guest's memory, and the registers that a walk reads.
pub trait Memory {
    /// Reads an entry of 4 or 8 bytes.
    fn read_entry(&mut self, address: u64, size: u32) -> Option<u64>;
    /// Replaces an entry if it still has the value `old`.
    fn exchange_entry(&mut self, address: u64, size: u32, old: u64, new: u64) -> Exchange;
    /// Reads bytes of one page.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Answer;
    /// Returns one of the four PDPTEs that the CPU holds.
    fn pdpte(&mut self, index: usize) -> u64;
    /// Returns RFLAGS.AC.
    fn alignment_check(&mut self) -> bool;
    /// Returns PKRU.
    fn pkru(&mut self) -> u32;
}

/// The reason why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest gets an exception.
    Exception(Exception),
    /// The guest has to retry the access.
    Retry,
    /// The host cannot read the guest's memory.
    HostFailure,
}

/// Passes the accesses of a walk to a [`Memory`].
struct Door<'a, M>(&'a mut M);

impl<M: Memory> walk::Memory for Door<'_, M> {
    fn read_entry(&mut self, address: Gpa, width: EntryWidth) -> Option<u64> {
        self.0.read_entry(address.into_raw(), width as u32)
    }

    fn exchange_entry(
        &mut self,
        address: Gpa,
        width: EntryWidth,
        old: u64,
        new: u64,
    ) -> walk::Exchange {
        let address = address.into_raw();
        match self.0.exchange_entry(address, width as u32, old, new) {
            Exchange::Done => walk::Exchange::Done,
            Exchange::Changed => walk::Exchange::Changed,
            Exchange::ReadOnly => walk::Exchange::ReadOnly,
            Exchange::NoMemory => walk::Exchange::NoMemory,
        }
    }

    fn read(&mut self, address: Gpa, bytes: &mut [u8]) -> walk::Answer {
        match self.0.read(address.into_raw(), bytes) {
            Answer::Bytes => walk::Answer::Bytes,
            Answer::NoMemory => walk::Answer::NoMemory,
            Answer::HostFailure => walk::Answer::HostFailure,
        }
    }

    fn pdpte(&mut self, index: usize) -> u64 {
        self.0.pdpte(index)
    }

    fn alignment_check(&mut self) -> bool {
        self.0.alignment_check()
    }

    fn pkru(&mut self) -> u32 {
        self.0.pkru()
    }
}

impl From<Access> for permission::Access {
    fn from(access: Access) -> Self {
        Self {
            kind: match access {
                Access { fetch: true, .. } => AccessKind::Fetch,
                Access { write: true, .. } => AccessKind::Write,
                _ => AccessKind::Read,
            },
            user: access.user,
        }
    }
}

impl From<walk::Stop> for Stop {
    fn from(stop: walk::Stop) -> Self {
        match stop {
            walk::Stop::Exception(fault) => Self::Exception(fault.into()),
            walk::Stop::Retry => Self::Retry,
            walk::Stop::HostFailure => Self::HostFailure,
        }
    }
}

/// Returns the setup of paging by the registers and CPUID.
fn paging(registers: &Registers, features: &Features) -> Paging {
    let Registers {
        cr0,
        cr3,
        cr4,
        efer,
        ..
    } = *registers;
    Paging::new(
        cr0.into(),
        cr3.into(),
        cr4.into(),
        efer.into(),
        paging::Features {
            max_phy_addr: MaxPhyAddr::new(features.max_phy_addr),
            gigabyte_pages: features.gigabyte_pages,
            pse36: features.pse36,
        },
    )
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
    walk::translate(
        &paging(registers, features),
        &mut Door(memory),
        Gva::new(address),
        access.into(),
    )
    .map(Gpa::into_raw)
    .map_err(Stop::from)
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
    walk::read(
        &paging(registers, features),
        &mut Door(memory),
        Gva::new(address),
        access.into(),
        is_64_bit,
    )
    .map_err(Stop::from)
}
