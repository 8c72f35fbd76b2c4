/* SPDX-License-Identifier: GPL-2.0 */
/* INVVPID as an assembly template for Rust, with the kernel's own exception-table entry. */
#include <asm/asm.h>
// Cut here.
::kernel::concat_literals!(
	"1: invvpid ({desc}), {kind}\n\t"
	"jna {fail}\n\t"
	_ASM_EXTABLE(1b, {fault})
)
