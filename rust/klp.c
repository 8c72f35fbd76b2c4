// SPDX-License-Identifier: GPL-2.0
/*
 * Livepatch: the functions that are replaced, and the symbols that kvm.ko and
 * kvm_intel.ko do not export.
 *
 * The kernel crate has no livepatch support, and livepatch wants static tables:
 * hence C.  Nothing is decided here; the callbacks lead to kvm/attach.rs.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <asm/text-patching.h>
#include "vmx_vpid.h"

/*
 * An import is a pointer that livepatch fills in with the address of a symbol,
 * by a livepatch relocation (Documentation/livepatch/module-elf-format.rst).
 * The relocation is written in the form that "objtool klp post-link" turns into
 * the final one: the pointer refers to a tombstone, which it later drops, and
 * an entry in __klp_relocs.OBJECT names the pointer, by a local label since
 * it has to be relative to the section, the symbol, and R_X86_64_64 (1).  The
 * symbols are weak until then, for modpost to let them pass.
 *
 * Those of kvm_intel and of kvm.ko, on which it depends, belong to the object
 * kvm_intel: they are resolved when it loads.
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
 * A function that is called is reached by a jump with such a relocation, 4
 * (R_X86_64_PLT32), on its operand, the last 4 bytes.  So the call is a direct
 * one, neither a retpoline nor stopped by IBT.
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
 * The body of a function that is itself replaced begins behind its call of
 * __fentry__, which leads to the replacement.  An ENDBR64 comes before that call
 * where the kernel has IBT.  has_body() looks at these bytes before they are used.
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
 * A symbol of the kernel's own is resolved while this module is loaded, whether
 * kvm_intel is there or not: by it a module is known that was not post-linked.
 */
asm("vmx_vpid_import vmlinux, vmlinux, linux_banner");

/* What each CPU knows of its slots. */
asm("vmx_vpid_import vmlinux, vmlinux, cpu_tlbstate");
asm("vmx_vpid_import vmlinux, vmlinux, cpu_tlbstate_shared");

/**
 * vmx_vpid_post_linked - tell whether "objtool klp post-link" was run on the module
 */
bool vmx_vpid_post_linked(void)
{
	return READ_ONCE(vmx_vpid_import_linux_banner);
}

/**
 * vmx_vpid_object_live - tell whether kvm_intel is past its own initialisation, and does not go
 * @obj: what a callback was called with
 */
bool vmx_vpid_object_live(const struct klp_object *obj)
{
	return obj->mod && READ_ONCE(obj->mod->state) == MODULE_STATE_LIVE;
}

/*
 * Whether the function at an address begins with [ENDBR64 and] a call of
 * __fentry__, as it is or patched to a NOP.
 */
static bool has_body(const u8 *address)
{
	static const u8 nop[FENTRY_SIZE] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };
	const u8 *fentry = address + ENDBR_SIZE;

	return *fentry == CALL_INSN_OPCODE || !memcmp(fentry, nop, sizeof(nop));
}

static int pre_patch(struct klp_object *obj)
{
	if (!has_body(vmx_vpid_import_vmx_vcpu_create) ||
	    !has_body(vmx_vpid_import_vmx_vcpu_free)) {
		pr_err("vmx_vcpu_create() and vmx_vcpu_free() do not begin with a call of __fentry__: not attached; build kvm_intel with CONFIG_FUNCTION_TRACER and -mfentry\n");
		return -EOPNOTSUPP;
	}

	return vmx_vpid_pre_patch(obj);
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

/* The new functions come from the registered backend's table. */
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
	{ .old_name = "handle_ept_misconfig" },
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
 * static calls would go on leading here, and the module could be unloaded under
 * them.  Livepatch refuses to replace a patch whose states the new one does not
 * know, and no other knows this one ("vmx_vpid" in ASCII).
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
 * vmx_vpid_klp_enable - put a table of operations in the place of kvm_intel's
 * @ops: the table; no entry may be NULL
 *
 * To be called once, as the last step of module initialisation that can fail.
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
 * kvm_intel's own initialisation, which runs after post_patch when it loads
 * late, points KVM's static calls at its own functions again.  Only its going
 * live tells that this is over.
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
