// SPDX-License-Identifier: GPL-2.0
/*
 * This file describes the livepatch: the functions that it replaces, and the symbols
 * that kvm.ko and kvm_intel.ko do not export.
 *
 * The kernel crate has no livepatch support, and livepatch needs static tables, so this
 * file is in C.  This file decides nothing; the callbacks lead to kvm/attach.rs.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <asm/text-patching.h>
#include "kvm_target.h"
#include "vmx_vpid.h"

/*
 * An import is a pointer that livepatch fills in with the address of a symbol, by a
 * livepatch relocation (Documentation/livepatch/module-elf-format.rst).  The source has
 * the relocation in the form that "objtool klp post-link" turns into the final one.
 * The pointer refers to a tombstone, which objtool drops.  An entry in
 * __klp_relocs.OBJECT names the pointer, the symbol, and R_X86_64_64 (1); the entry
 * names the pointer by a local label, since the entry has to be relative to the
 * section.  Until then the symbols are weak, so that modpost accepts them.
 *
 * Symbols of kvm_intel, and of kvm.ko, on which kvm_intel depends, belong to the object
 * kvm_intel: livepatch resolves them when kvm_intel is loaded.
 */
asm(".macro vmx_vpid_import object, module, name\n"
	".pushsection .data.vmx_vpid_imports, \"aw\"\n"
	".balign 8\n"
	".globl vmx_vpid_import_\\name\n"
	".type vmx_vpid_import_\\name, @object\n"
	".size vmx_vpid_import_\\name, 8\n"
	"vmx_vpid_import_\\name:\n"
	"77: .quad \".klp.tombstone.\\name\"\n"
	".popsection\n"
	".weak \".klp.tombstone.\\name\"\n"
	".weak \".klp.sym.\\module\\().\\name\\(),0\"\n"
	".pushsection \"__klp_relocs.\\object\", \"a\"\n"
	".quad 77b\n"
	".quad \".klp.sym.\\module\\().\\name\\(),0\"\n"
	".long 1\n"
	".long 0\n"
	".popsection\n"
	".endm\n");

/*
 * The stub of a function to call is a jump with such a relocation, 4 (R_X86_64_PLT32),
 * on the jump's operand, the last 4 bytes.  So the call is direct: it needs no
 * retpoline, and IBT does not stop it.
 */
asm(".macro vmx_vpid_call module, name\n"
	".pushsection .text.vmx_vpid_calls, \"ax\"\n"
	".globl vmx_vpid_call_\\name\n"
	".type vmx_vpid_call_\\name, @function\n"
	"vmx_vpid_call_\\name:\n"
	"jmp \".klp.tombstone.call.\\name\"\n"
	"77:\n"
	"int3\n"
	".size vmx_vpid_call_\\name, . - vmx_vpid_call_\\name\n"
	".popsection\n"
	".weak \".klp.tombstone.call.\\name\"\n"
	".weak \".klp.sym.\\module\\().\\name\\(),0\"\n"
	".pushsection \"__klp_relocs.kvm_intel\", \"a\"\n"
	".quad 77b - 4\n"
	".quad \".klp.sym.\\module\\().\\name\\(),0\" - 4\n"
	".long 4\n"
	".long 0\n"
	".popsection\n"
	".endm\n");

/*
 * The body of a function that livepatch replaces begins behind the function's call of
 * __fentry__, which leads to the replacement.  If the kernel has IBT, an ENDBR64 comes
 * before that call.  has_body() checks these bytes before the body is used.
 */
#define ENDBR_SIZE	(IS_ENABLED(CONFIG_X86_KERNEL_IBT) ? 4 : 0)
#define FENTRY_SIZE	5
#if IS_ENABLED(CONFIG_X86_KERNEL_IBT)
#define BODY_OFFSET	"9"
#else
#define BODY_OFFSET	"5"
#endif
asm(".macro vmx_vpid_body module, name\n"
	".pushsection .text.vmx_vpid_calls, \"ax\"\n"
	".globl vmx_vpid_body_\\name\n"
	".type vmx_vpid_body_\\name, @function\n"
	"vmx_vpid_body_\\name:\n"
	"jmp \".klp.tombstone.body.\\name\"\n"
	"77:\n"
	"int3\n"
	".size vmx_vpid_body_\\name, . - vmx_vpid_body_\\name\n"
	".popsection\n"
	".weak \".klp.tombstone.body.\\name\"\n"
	".weak \".klp.sym.\\module\\().\\name\\(),0\"\n"
	".pushsection \"__klp_relocs.kvm_intel\", \"a\"\n"
	".quad 77b - 4\n"
	".quad \".klp.sym.\\module\\().\\name\\(),0\" - 4 + " BODY_OFFSET "\n"
	".long 4\n"
	".long 0\n"
	".popsection\n"
	".endm\n");

#define KVM_IMPORT(name)	asm("vmx_vpid_import kvm_intel, kvm, " #name)
#define KVM_INTEL_IMPORT(name)	asm("vmx_vpid_import kvm_intel, kvm_intel, " #name)
#define KVM_CALL(name)		asm("vmx_vpid_call kvm, " #name)
#define KVM_INTEL_CALL(name)	asm("vmx_vpid_call kvm_intel, " #name)
#define KVM_INTEL_BODY(name)	asm("vmx_vpid_body kvm_intel, " #name)
#include "vmx_vpid_imports.h"

/*
 * The kernel resolves a symbol of its own while this module is loaded, whether
 * kvm_intel is loaded or not.  If this import is empty then, the module was not
 * post-linked.
 */
asm("vmx_vpid_import vmlinux, vmlinux, linux_banner");

/* The notes of the kernel, among them its build-id: see kvm_target.c. */
asm("vmx_vpid_import vmlinux, vmlinux, __start_notes");
asm("vmx_vpid_import vmlinux, vmlinux, __stop_notes");

/* Each CPU's ASID slots. */
asm("vmx_vpid_import vmlinux, vmlinux, cpu_tlbstate");
asm("vmx_vpid_import vmlinux, vmlinux, cpu_tlbstate_shared");

/**
 * vmx_vpid_post_linked - return whether "objtool klp post-link" was run on the module
 */
bool vmx_vpid_post_linked(void)
{
	return READ_ONCE(vmx_vpid_import_linux_banner);
}

/**
 * vmx_vpid_object_live - return whether kvm_intel is past its initialisation and stays
 * @obj: the object that livepatch passed to the callback
 */
bool vmx_vpid_object_live(const struct klp_object *obj)
{
	return obj->mod && READ_ONCE(obj->mod->state) == MODULE_STATE_LIVE;
}

/*
 * Return whether the function at an address begins with a call of __fentry__, after an
 * ENDBR64 if the kernel has IBT.  The call may be patched to a NOP.
 */
static bool has_body(const u8 *address)
{
	static const u8 nop[FENTRY_SIZE] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };
	const u8 *fentry = address + ENDBR_SIZE;

	/* (or to an INT3, while ftrace rewrites it) */
	return *fentry == CALL_INSN_OPCODE || *fentry == INT3_INSN_OPCODE ||
	       !memcmp(fentry, nop, sizeof(nop));
}

static int check_kvm(const struct klp_object *obj)
{
	int ret = vmx_vpid_target_check_kvm(obj->mod);

	if (ret)
		return ret;

	if (!has_body(vmx_vpid_import_vmx_vcpu_create) ||
	    !has_body(vmx_vpid_import_vmx_vcpu_free)) {
		pr_err("vmx_vpid: vmx_vcpu_create() and vmx_vcpu_free() do not begin with a call of __fentry__: not attached; build kvm_intel with CONFIG_FUNCTION_TRACER and -mfentry\n");
		return -EOPNOTSUPP;
	}

	return 0;
}

static struct klp_patch patch;

static int pre_patch(struct klp_object *obj)
{
	int ret = check_kvm(obj);

	if (!ret)
		return vmx_vpid_pre_patch(obj);

	/*
	 * Livepatch takes an error for a reason not to load the module that it patches, unless
	 * the patch itself is just being enabled.
	 */
	if (patch.enabled && READ_ONCE(obj->mod->state) == MODULE_STATE_COMING)
		pr_err("vmx_vpid: kvm_intel does not load while this module waits for it: disable and unload vmx_vpid, then load kvm_intel again; until then no kvm_intel loads\n");
	return ret;
}

static void post_patch(struct klp_object *obj)
{
	vmx_vpid_post_patch(obj);
}

static void pre_unpatch(struct klp_object *obj)
{
	vmx_vpid_pre_unpatch();
}

static void post_unpatch(struct klp_object *obj)
{
	vmx_vpid_post_unpatch();
}

/*
 * vmx_vpid_klp_enable() sets the new functions, from the registered backend's table.
 *
 * With retpolines KVM calls the handler of EPT misconfigurations directly.  gcc
 * inlines the handler's first test into the caller, and calls the rest, to which
 * handle_ept_misconfig() itself jumps.  The operation repeats the test.
 */
static struct klp_func funcs[] = {
	{ .old_name = "allocate_vpid" },
	{ .old_name = "free_vpid" },
	{ .old_name = "vmx_flush_tlb_all" },
	{ .old_name = "vmx_flush_tlb_current" },
	{ .old_name = "vmx_flush_tlb_gva" },
	{ .old_name = "vmx_flush_tlb_guest" },
	{ .old_name = "handle_invlpg" },
	{ .old_name = "handle_invpcid" },
	{ .old_name = "handle_invvpid" },
	{ .old_name = "handle_invept" },
	{ .old_name = "handle_ept_violation" },
	{ .old_name = VMX_VPID_EPT_MISCONFIG },
	{ .old_name = "vmx_vcpu_create" },
	{ .old_name = "vmx_vcpu_free" },
	{ }
};

static struct klp_object objs[] = {
	{
		.name = "kvm_intel",
		.funcs = funcs,
		.callbacks = {
			.pre_patch = pre_patch,
			.post_patch = post_patch,
			.pre_unpatch = pre_unpatch,
			.post_unpatch = post_unpatch,
		},
	},
	{ }
};

/*
 * A cumulative livepatch replaces all others without calling their callbacks: the
 * static calls would still lead to this module, and the module could be unloaded under
 * them.  Livepatch refuses to replace a patch that has a state which the new patch does
 * not know, and no other patch knows this state ("vmx_vpid" in ASCII).
 */
static struct klp_state states[] = {
	{ .id = 0x646970765f786d76, .version = 1 },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.states = states,
};

/**
 * vmx_vpid_klp_enable - replace kvm_intel's functions by a table of operations
 * @ops: the table; no entry may be NULL
 *
 * Call this once, as the last step of module initialisation that can fail.
 *
 * Return: 0, or the errno of klp_enable_patch().
 */
int vmx_vpid_klp_enable(const struct vmx_vpid_ops *ops)
{
	funcs[0].new_func = ops->allocate_vpid;
	funcs[1].new_func = ops->free_vpid;
	funcs[2].new_func = ops->flush_tlb_all;
	funcs[3].new_func = ops->flush_tlb_current;
	funcs[4].new_func = ops->flush_tlb_gva;
	funcs[5].new_func = ops->flush_tlb_guest;
	funcs[6].new_func = ops->handle_invlpg;
	funcs[7].new_func = ops->handle_invpcid;
	funcs[8].new_func = ops->handle_invvpid;
	funcs[9].new_func = ops->handle_invept;
	funcs[10].new_func = ops->handle_ept_violation;
	funcs[11].new_func = ops->handle_ept_misconfig;
	funcs[12].new_func = ops->vcpu_create;
	funcs[13].new_func = ops->vcpu_free;

	return klp_enable_patch(&patch);
}

/*
 * If kvm_intel is loaded while the backend is attached, its initialisation runs after
 * post_patch and points KVM's static calls at its own functions again.  Only the
 * notification that kvm_intel is live tells that this is over.
 */
static int notify(struct notifier_block *nb, unsigned long state, void *data)
{
	struct module *mod = data;

	if (strcmp(mod->name, "kvm_intel"))
		return NOTIFY_DONE;

	if (state == MODULE_STATE_LIVE)
		vmx_vpid_kvm_intel_state(true);
	else if (state == MODULE_STATE_GOING)
		vmx_vpid_kvm_intel_state(false);

	return NOTIFY_DONE;
}

static struct notifier_block notifier = {
	.notifier_call = notify,
};

int vmx_vpid_notifier_register(void)
{
	return register_module_notifier(&notifier);
}

void vmx_vpid_notifier_unregister(void)
{
	unregister_module_notifier(&notifier);
}

MODULE_INFO(livepatch, "Y");
