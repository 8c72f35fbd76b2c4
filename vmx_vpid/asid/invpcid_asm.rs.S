/* SPDX-License-Identifier: GPL-2.0 */
/* INVPCID as an assembly template for Rust, with the kernel's own exception-table entry. */
#include <asm/asm.h>
// Cut here.
::kernel::concat_literals!(
	"1: invpcid ({desc}), {kind}\n\t"
	_ASM_EXTABLE(1b, {fault})
)
