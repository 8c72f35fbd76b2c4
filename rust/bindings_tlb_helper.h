/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What asm/tlbflush.h shows to the kernel alone.  It is read without MODULE being
 * defined, and never compiled into anything: only the layout of types is taken.
 */
#include <linux/mm_types.h>
#include <asm/tlbflush.h>

/* Constants that bindgen cannot read off a macro. */
static const u64 VMX_VPID_LOADED_MM_SWITCHING = 1;
static const u32 VMX_VPID_TLB_NR_DYN_ASIDS = TLB_NR_DYN_ASIDS;
