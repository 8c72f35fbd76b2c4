/* SPDX-License-Identifier: GPL-2.0 */
/* VMREAD to memory as an assembly template for Rust, with an exception-table entry. */
#include <asm/asm.h>
// Cut here.
::kernel::concat_literals!(
	"1: vmread {field}, ({value})\n\t"
	"jna {fail}\n\t"
	_ASM_EXTABLE(1b, {fail})
)
