// SPDX-License-Identifier: GPL-2.0

//! This module reads from a VMCS which VPID tags the mappings of its guest.
//!
//! A control of the VMCS turns VPIDs on, and a field of the VMCS has the number.  VM entry fails
//! if the control is on and the number is 0, the host's VPID.  So this module reads and writes the
//! control and the number together, and treats the number 0 as invalid.
//! Source: the manual's chapter on virtual-machine control structures, "Secondary Processor-Based
//! VM-Execution Controls" and "Virtual-Processor Identifier", and the chapter on VM entries,
//! "VM-Execution Control Fields".

use crate::{
    vmx::insn::Field,
    vpid::Vpid, //
};
use kernel::{
    bitfield,
    prelude::*, //
};

bitfield! {
    /// The bit of the primary processor-based controls that this module reads.
    struct Primary(u32) {
        /// The secondary controls are active; otherwise the CPU treats them as 0.
        31:31   secondary => bool;
    }
}

bitfield! {
    /// The bit of the secondary processor-based controls that this module uses.
    struct Secondary(u32) {
        /// The VPID tags the guest's mappings; otherwise 0 tags them, and every VM entry and VM
        /// exit drops them.
        5:5     vpid => bool;
    }
}

/// A VMCS whose fields can be read.
pub(crate) trait Vmcs {
    /// Reads a field; returns `None` if the field cannot be read.
    fn read(&self, field: Field) -> Option<u64>;
}

/// A VMCS whose fields can be written.
///
/// For models only: KVM itself writes the fields of real VMCSs.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
pub(crate) trait VmcsMut: Vmcs {
    /// Writes a field; returns whether the write succeeded.
    fn write(&mut self, field: Field, value: u64) -> bool;
}

/// The VPID of a VMCS, which tags the mappings of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VmcsVpid {
    /// VPIDs are off: 0 tags the mappings, as it does the host's, and every VM entry and VM exit
    /// drops them.
    None,
    /// A VPID tags the mappings.
    By(Vpid),
}

/// The reason why a VMCS has no valid setting of VPIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VmcsVpidError {
    /// A field cannot be accessed.
    Inaccessible(Field),
    /// VPIDs are on, and the number is 0 or has more than 16 bits: VM entry fails.
    Invalid(u64),
}

impl VmcsVpid {
    /// Returns the VPID of a VMCS.
    ///
    /// # Errors
    ///
    /// See [`VmcsVpidError`].
    pub(crate) fn of(vmcs: &impl Vmcs) -> Result<Self, VmcsVpidError> {
        let (_, secondary) = controls(vmcs)?;
        if !secondary.vpid() {
            return Ok(Self::None);
        }
        let field = Field::VIRTUAL_PROCESSOR_ID;
        let number = vmcs.read(field).ok_or(VmcsVpidError::Inaccessible(field))?;
        let vpid = u16::try_from(number).ok().and_then(Vpid::new);
        vpid.map(Self::By).ok_or(VmcsVpidError::Invalid(number))
    }

    /// Sets the VPID of a VMCS.
    ///
    /// The number is written before the control is turned on, and changed only while the control is
    /// off: whichever write fails, VM entry never finds the control on with a wrong number.  The
    /// secondary controls have to be active already; activating them here could turn on other
    /// controls besides VPIDs.
    ///
    /// # Errors
    ///
    /// [`VmcsVpidError::Inaccessible`] for the field that could not be accessed; for the primary
    /// controls if the secondary controls are not active.  The VMCS then has its old VPID, or VPIDs
    /// are off.
    #[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
    pub(crate) fn put(self, vmcs: &mut impl VmcsMut) -> Result<(), VmcsVpidError> {
        let refuse = |field| Err(VmcsVpidError::Inaccessible(field));
        let (primary, secondary) = controls(vmcs)?;
        let on = match self {
            Self::None if !primary.secondary() => return Ok(()),
            _ if !primary.secondary() => return refuse(Field::PRIMARY_CONTROLS),
            Self::None => false,
            Self::By(_) => true,
        };
        // Turn the control off first, so that no VM entry uses the new number too early.
        if secondary.vpid() && !put_controls(vmcs, secondary.with_vpid(false)) {
            return refuse(Field::SECONDARY_CONTROLS);
        }
        let number = match self {
            Self::None => 0,
            Self::By(vpid) => vpid.into_raw(),
        };
        if !vmcs.write(Field::VIRTUAL_PROCESSOR_ID, number.into()) {
            return refuse(Field::VIRTUAL_PROCESSOR_ID);
        }
        if on && !put_controls(vmcs, secondary.with_vpid(true)) {
            return refuse(Field::SECONDARY_CONTROLS);
        }
        Ok(())
    }
}

/// Reads both controls; returns 0 for the secondary controls if they are not active.
fn controls(vmcs: &impl Vmcs) -> Result<(Primary, Secondary), VmcsVpidError> {
    let read = |field| vmcs.read(field).ok_or(VmcsVpidError::Inaccessible(field));
    // CAST: Controls have 32 bits.
    let primary = Primary::from(read(Field::PRIMARY_CONTROLS)? as u32);
    let secondary = if primary.secondary() {
        // CAST: Controls have 32 bits.
        Secondary::from(read(Field::SECONDARY_CONTROLS)? as u32)
    } else {
        Secondary::zeroed()
    };
    Ok((primary, secondary))
}

/// Writes the secondary controls.
#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
fn put_controls(vmcs: &mut impl VmcsMut, controls: Secondary) -> bool {
    vmcs.write(Field::SECONDARY_CONTROLS, controls.into_raw().into())
}

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_vmcs)]
mod tests {
    use super::*;

    /// Other secondary controls that are on: EPT and unrestricted guest.
    const OTHERS: u64 = 1 << 1 | 1 << 7;
    const VPID: u64 = 1 << 5;
    const SECONDARY: u64 = 1 << 31;

    /// A VMCS of three fields, with accesses that fail on demand.
    #[derive(Clone, Copy)]
    struct Three {
        fields: [(Field, u64); 3],
        /// How many writes succeed.
        writes: usize,
        /// The field that cannot be read.
        unreadable: Option<Field>,
    }

    impl Three {
        fn new(primary: u64, secondary: u64, number: u64) -> Self {
            Self {
                fields: [
                    (Field::PRIMARY_CONTROLS, primary),
                    (Field::SECONDARY_CONTROLS, secondary),
                    (Field::VIRTUAL_PROCESSOR_ID, number),
                ],
                writes: usize::MAX,
                unreadable: None,
            }
        }

        /// Returns the tag that the CPU would use after VM entry, or an error if VM entry fails.
        fn enters_with(&self) -> Result<u64> {
            let [(_, primary), (_, secondary), (_, number)] = self.fields;
            match (primary & SECONDARY != 0 && secondary & VPID != 0, number) {
                (false, _) => Ok(0),
                (true, 0) => Err(EINVAL),
                (true, number) => Ok(number),
            }
        }
    }

    impl Vmcs for Three {
        fn read(&self, field: Field) -> Option<u64> {
            let found = self.fields.iter().find(|known| known.0 == field);
            let found = found.filter(|_| self.unreadable != Some(field));
            found.map(|known| known.1)
        }
    }

    impl VmcsMut for Three {
        fn write(&mut self, field: Field, value: u64) -> bool {
            let Some(left) = self.writes.checked_sub(1) else {
                return false;
            };
            self.writes = left;
            for known in &mut self.fields {
                if known.0 == field {
                    known.1 = value;
                }
            }
            // VM entry has to succeed after every single write.
            assert!(self.enters_with().is_ok());
            true
        }
    }

    fn by(number: u16) -> Result<VmcsVpid> {
        Vpid::new(number).map(VmcsVpid::By).ok_or(EINVAL)
    }

    #[test]
    fn the_control_and_the_number_are_read_together() -> Result {
        for (primary, secondary, number, tagging) in [
            (SECONDARY, OTHERS | VPID, 1, Ok(by(1)?)),
            (SECONDARY, VPID, 0xffff, Ok(by(0xffff)?)),
            (SECONDARY, OTHERS | VPID, 0, Err(VmcsVpidError::Invalid(0))),
            (
                SECONDARY,
                VPID,
                1 << 16,
                Err(VmcsVpidError::Invalid(1 << 16)),
            ),
            // VPIDs are off by one of the two controls: the number does not matter.
            (SECONDARY, OTHERS, 7, Ok(VmcsVpid::None)),
            (0, OTHERS | VPID, 7, Ok(VmcsVpid::None)),
            (!SECONDARY, !0, 0, Ok(VmcsVpid::None)),
        ] {
            let vmcs = Three::new(primary, secondary, number);
            assert_eq!(VmcsVpid::of(&vmcs), tagging);
        }
        for field in Three::new(0, 0, 0).fields.map(|known| known.0) {
            let mut vmcs = Three::new(SECONDARY, VPID, 1);
            vmcs.unreadable = Some(field);
            assert_eq!(VmcsVpid::of(&vmcs), Err(VmcsVpidError::Inaccessible(field)));
        }
        Ok(())
    }

    // Goes from each state to each other state, and lets each write be the last that succeeds.
    #[test]
    fn vm_entry_never_finds_a_half_written_vpid() -> Result {
        for from in [VmcsVpid::None, by(1)?, by(2)?] {
            for to in [VmcsVpid::None, by(1)?, by(3)?] {
                let mut before = Three::new(SECONDARY, OTHERS, 0);
                assert_eq!(from.put(&mut before), Ok(()));
                assert_eq!(VmcsVpid::of(&before), Ok(from));
                for writes in 0..4 {
                    let mut vmcs = before;
                    vmcs.writes = writes;
                    let outcome = to.put(&mut vmcs);
                    let found = VmcsVpid::of(&vmcs);
                    match outcome {
                        Ok(()) => assert_eq!(found, Ok(to)),
                        Err(_) => assert!(found == Ok(from) || found == Ok(VmcsVpid::None)),
                    }
                    assert_eq!(vmcs.fields[1].1 & !VPID, OTHERS);
                    assert!(writes != 3 || outcome.is_ok());
                }
            }
        }
        Ok(())
    }

    #[test]
    fn inactive_secondary_controls_are_not_written() -> Result {
        let mut vmcs = Three::new(0, OTHERS, 0);
        let refused = Err(VmcsVpidError::Inaccessible(Field::PRIMARY_CONTROLS));
        assert_eq!(by(5)?.put(&mut vmcs), refused);
        assert_eq!(VmcsVpid::None.put(&mut vmcs), Ok(()));
        assert_eq!(vmcs.fields[1].1, OTHERS);
        Ok(())
    }
}
