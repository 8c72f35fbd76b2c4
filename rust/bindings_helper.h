/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KVM's private headers, from the very tree that the module is built against:
 * no offset is ever written by hand.
 */
#include <linux/kvm_host.h>
#include <linux/static_call.h>
#include "vmx/vmx.h"
#include "vmx/vmcs12.h"
#include "vmx_vpid.h"

/* Constants that bindgen cannot read off a macro. */
static const hpa_t VMX_VPID_INVALID_PAGE = INVALID_PAGE;
static const u32 VMX_VPID_SECONDARY_CONTROLS = CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
static const u32 VMX_VPID_ENABLE_VPID = SECONDARY_EXEC_ENABLE_VPID;
