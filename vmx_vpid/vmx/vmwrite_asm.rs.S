/* SPDX-License-Identifier: GPL-2.0 */
/* VMWRITE as an assembly template for Rust, with an exception-table entry. */
#include <asm/asm.h>
// Cut here.
::kernel::concat_literals!(
	"1: vmwrite {value}, {field}\n\t"
	"jna {fail}\n\t"
	_ASM_EXTABLE(1b, {fail})
)
