/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header includes KVM's private headers, from the tree that the module is built
 * against: no offset is written by hand.
 */
#include <linux/kvm_host.h>
#include <linux/static_call.h>
#include "vmx/vmx.h"
#include "vmx/vmcs12.h"
#include "kvm_target.h"
#include "vmx_vpid.h"

/* Whether KVM calls the handler of EPT misconfigurations by the name that is livepatched. */
static const u32 VMX_VPID_MISCONFIG_CALLED = VMX_VPID_EPT_MISCONFIG_CALLED;

/*
 * Constants that bindgen cannot read from a macro.  A value above 2^63 is signed
 * here: bindgen before 0.72 would make an external variable of it.
 */
static const s64 VMX_VPID_INVALID_PAGE = (s64)INVALID_PAGE;
static const u32 VMX_VPID_SECONDARY_CONTROLS = CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
static const u32 VMX_VPID_ENABLE_VPID = SECONDARY_EXEC_ENABLE_VPID;
static const u32 VMX_VPID_ENABLE_EPT = SECONDARY_EXEC_ENABLE_EPT;
static const u32 VMX_VPID_UD_VECTOR = UD_VECTOR;
static const u32 VMX_VPID_SS_VECTOR = SS_VECTOR;
static const u32 VMX_VPID_GP_VECTOR = GP_VECTOR;
static const u32 VMX_VPID_FEATURE_INVPCID = X86_FEATURE_INVPCID;
static const u32 VMX_VPID_FEATURE_GBPAGES = X86_FEATURE_GBPAGES;
static const u32 VMX_VPID_FEATURE_PSE36 = X86_FEATURE_PSE36;
static const u32 VMX_VPID_EXIT_INVLPG = EXIT_REASON_INVLPG;
static const u32 VMX_VPID_EXIT_INVPCID = EXIT_REASON_INVPCID;
static const u32 VMX_VPID_EXIT_INVVPID = EXIT_REASON_INVVPID;
static const u32 VMX_VPID_EXIT_INVEPT = EXIT_REASON_INVEPT;
static const u32 VMX_VPID_EXIT_EPT_VIOLATION = EXIT_REASON_EPT_VIOLATION;
static const u32 VMX_VPID_EXIT_EPT_MISCONFIG = EXIT_REASON_EPT_MISCONFIG;
static const u32 VMX_VPID_ENCLAVE_MODE = VMX_EXIT_REASONS_SGX_ENCLAVE_MODE;
static const u32 VMX_VPID_VECTORING_VALID = VECTORING_INFO_VALID_MASK;
static const int VMX_VPID_EMULTYPE_PF = EMULTYPE_PF;
static const u32 VMX_VPID_NR_CPU_CAPS = NR_KVM_CPU_CAPS;
static const u64 VMX_VPID_CR0_WP = X86_CR0_WP;
static const u32 VMX_VPID_NUM_PREV_ROOTS = KVM_MMU_NUM_PREV_ROOTS;
static const u32 VMX_VPID_ROOTS_ALL = KVM_MMU_ROOTS_ALL;
