// SPDX-License-Identifier: GPL-2.0

//! This module mocks instructions that only a kernel may execute.

/// Returns whether an instruction raises an exception: in userspace, each instruction does.
///
/// # Safety
///
/// None.  The function is unsafe because the kernel's `asm!` requires an unsafe block, which would
/// be unused here otherwise.
pub unsafe fn faults() -> bool {
    true
}

/// Mocks an instruction that raises an exception, as VMX instructions do with VMX off: continues at
/// the last label, which is the label of the exception.
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
