// SPDX-License-Identifier: GPL-2.0
/*
 * This file compares the build-ids of the running kernel and KVM with those that the
 * module was built for.
 *
 * The module reads KVM's structures at offsets that were fixed when it was
 * built.  KVM of another build may have others, and nothing else would notice:
 * livepatch resolves symbols by name, and vermagic names the release alone.
 */
#include <linux/module.h>
#include <linux/string.h>
#include "vmx/vmcs12.h"
#include "kvm_target.h"
#include "vmx_vpid.h"

#define BUILD_ID_SIZE	20

/* The note in which the linker puts a build-id, up to the build-id itself. */
static const u32 note_head[] = {
	4,		/* size of the name */
	BUILD_ID_SIZE,
	3,		/* NT_GNU_BUILD_ID */
	0x00554e47,	/* "GNU" */
};

const struct vmx_vpid_layout vmx_vpid_layout = {
	.kvm_vcpu = sizeof(struct kvm_vcpu),
	.vcpu_vmx = sizeof(struct vcpu_vmx),
	.vmcs12 = sizeof(struct vmcs12),
	.arch_mmu = offsetof(struct kvm_vcpu, arch.mmu),
	.arch_regs = offsetof(struct kvm_vcpu, arch.regs),
	.arch_cr3 = offsetof(struct kvm_vcpu, arch.cr3),
	.arch_hflags = offsetof(struct kvm_vcpu, arch.hflags),
	.vmx_vpid = offsetof(struct vcpu_vmx, vpid),
	.vmx_nested = offsetof(struct vcpu_vmx, nested),
	.vmx_loaded_vmcs = offsetof(struct vcpu_vmx, loaded_vmcs),
	.vmx_exit_reason = offsetof(struct vcpu_vmx, vt.exit_reason),
};

static const u8 vmlinux_target[BUILD_ID_SIZE] = VMX_VPID_TARGET_VMLINUX;
static const u8 kvm_target[BUILD_ID_SIZE] = VMX_VPID_TARGET_KVM;
static const u8 kvm_intel_target[BUILD_ID_SIZE] = VMX_VPID_TARGET_KVM_INTEL;

/*
 * Notes are aligned to 4 bytes; the first one of this kind counts.  A module's notes
 * lie among its constants, between which KASAN has poisoned gaps.
 */
static __no_sanitize_address const u8 *find_build_id(const u32 *at, size_t size)
{
	const u32 *end = at + size / sizeof(*at);
	int i;

	for (; end - at >= ARRAY_SIZE(note_head) + BUILD_ID_SIZE / sizeof(*at); at++) {
		for (i = 0; i < ARRAY_SIZE(note_head); i++)
			if (READ_ONCE(at[i]) != note_head[i])
				break;
		if (i == ARRAY_SIZE(note_head))
			return (const u8 *)(at + i);
	}

	return NULL;
}

static int check(const char *name, const u8 *found, const u8 *target)
{
	if (found && !memcmp(found, target, BUILD_ID_SIZE))
		return 0;

	if (found)
		pr_err("vmx_vpid: this module was built for the %s with build-id %*phN, this one is %*phN: build the module for the running kernel ('make stock', or 'make modules KDIR=')\n",
		       name, BUILD_ID_SIZE, target, BUILD_ID_SIZE, found);
	else
		pr_err("vmx_vpid: %s has no build-id, and the module cannot know whether it was built for it\n",
		       name);

	return -ENOEXEC;
}

/**
 * vmx_vpid_target_check_vmlinux - compare the running kernel with the one that was built for
 *
 * Return: 0, or -ENOEXEC, and the log has both build-ids.
 */
int vmx_vpid_target_check_vmlinux(void)
{
	const void *start = vmx_vpid_import___start_notes;

	return check("vmlinux", find_build_id(start, vmx_vpid_import___stop_notes - start),
		     vmlinux_target);
}

static int check_module(const char *name, const struct module *mod, const u8 *target)
{
	const struct module_memory *rodata = &mod->mem[MOD_RODATA];

	return check(name, find_build_id(rodata->base, rodata->size), target);
}

/**
 * vmx_vpid_target_check_kvm - compare KVM with the one that was built for
 * @kvm_intel: the module kvm_intel
 *
 * To be called while kvm_intel's symbols are resolved, before anything of KVM's is read.
 *
 * Return: 0, or -ENOEXEC, and the log has both build-ids.
 */
int vmx_vpid_target_check_kvm(const struct module *kvm_intel)
{
	int ret = check_module("kvm", vmx_vpid_import___this_module, kvm_target);

	return ret ?: check_module("kvm_intel", kvm_intel, kvm_intel_target);
}
