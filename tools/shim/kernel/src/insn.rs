// SPDX-License-Identifier: GPL-2.0

//! This module stands in for instructions that only a kernel may issue.

/// Tells whether an instruction raised an exception: on the host, each one does.
///
/// # Safety
///
/// None of its own; the kernel's `asm!` asks for an unsafe block.
pub unsafe fn faults() -> bool {
    true
}

/// Answers an instruction as a CPU does with VMX off: leaves by the last label, that of the fault.
#[macro_export]
macro_rules! asm {
    (@ $last:ident = label $block:block $(,)?) => {
        if $crate::faults() $block
    };
    (@ $label:ident = label $block:block, $($rest:tt)+) => {
        $crate::asm!(@ $($rest)+)
    };
    (@ $operand:ident = in(reg) $value:expr, $($rest:tt)+) => {
        let _ = $value;
        $crate::asm!(@ $($rest)+)
    };
    ($template:expr; $($rest:tt)+) => {
        $crate::asm!(@ $($rest)+)
    };
}
