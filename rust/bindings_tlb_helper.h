/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header includes the part of asm/tlbflush.h that modules do not get.  bindgen
 * reads this file without MODULE defined, and takes only the layout of types; no
 * compiler compiles it.
 */
#include <linux/mm_types.h>
#include <asm/tlbflush.h>

/* Constants that bindgen cannot read from a macro. */
static const u64 VMX_VPID_LOADED_MM_SWITCHING = 1;
static const u32 VMX_VPID_TLB_NR_DYN_ASIDS = TLB_NR_DYN_ASIDS;
