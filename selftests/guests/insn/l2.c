// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of instructions that L2 executes.  INVVPID and INVEPT exit to
 * L1; INVLPG and INVPCID exit to L1 if L1 intercepts them, and otherwise invalidate
 * translations of L2 or raise an exception in L2.
 */
#include "groups.h"

#define OLD		0x1111
#define NEW		0x2222
#define VPID12		9
#define NOTHING_SEEN	-1ul

static const struct op_in_l2 {
	const char *name;
	enum op insn;
	u64 type;
	u64 low, high;		/* the descriptor; for INVPCID, 0 is the page's address */
	bool intercept;		/* L1 has INVLPG-exiting */
	bool no_invpcid;	/* L1 does not have enable-INVPCID */
	u32 reason;		/* the wanted exit to L1, if any */
	int vector;		/* the wanted exception in L2, if any */
} ops[] = {
	{ "INVLPG", INVLPG },
	{ "INVLPG, intercepted", INVLPG, .intercept = true, .reason = EXIT_REASON_INVLPG },
	{ "INVPCID type 0", INVPCID, 0 },
	{ "INVPCID type 1", INVPCID, 1 },
	{ "INVPCID type 2", INVPCID, 2 },
	{ "INVPCID type 3", INVPCID, 3 },
	{ "INVPCID type 4", INVPCID, 4, .vector = GP_VECTOR },
	{ "INVPCID type 0, PCID 1", INVPCID, 0, 1, .vector = GP_VECTOR },
	{ "INVPCID type 2, bit 12", INVPCID, 2, 0x1000, .vector = GP_VECTOR },
	{ "INVPCID type 0, not canonical", INVPCID, 0, 0, BIT_ULL(63), .vector = GP_VECTOR },
	{ "INVPCID, not enabled", INVPCID, 2, .no_invpcid = true, .vector = UD_VECTOR },
	{ "INVPCID, intercepted", INVPCID, 2, .intercept = true, .reason = EXIT_REASON_INVPCID },
	{ "INVPCID type 4, intercepted", INVPCID, 4, .intercept = true,
	  .reason = EXIT_REASON_INVPCID },
	{ "INVPCID, intercepted, not enabled", INVPCID, 2, .intercept = true, .no_invpcid = true,
	  .vector = UD_VECTOR },
	{ "INVVPID", INVVPID, 1, 1, .reason = EXIT_REASON_INVVPID },
	{ "INVVPID type 5", INVVPID, 5, 1, .reason = EXIT_REASON_INVVPID },
	{ "INVEPT", INVEPT, 2, .reason = EXIT_REASON_INVEPT },
	{ "INVEPT type 5", INVEPT, 5, .reason = EXIT_REASON_INVEPT },
};

struct world {
	u64 *page;
	u64 *entry;
	u64 old, new;
};

/* The result of each instruction. */
struct seen {
	u64 reason, vector, value, qualification;
};

static struct seen seen[ARRAY_SIZE(ops)];
static struct world world;
static int number;
static u64 l2_vector, l2_value;

static u8 execute_op(const struct op_in_l2 *op)
{
	u64 descriptor[2] = { op->low, op->high };

	if (op->insn == INVPCID && !op->high)
		descriptor[1] = (u64)world.page;
	switch (op->insn) {
	case INVLPG:
		return kvm_asm_safe("invlpg (%[page])", [page]"r"(world.page));
	case INVPCID:
		return kvm_asm_safe("invpcid %[d], %[t]", [d]"m"(descriptor), [t]"r"(op->type));
	case INVVPID:
		return kvm_asm_safe("invvpid %[d], %[t]", [d]"m"(descriptor), [t]"r"(op->type));
	default:
		return kvm_asm_safe("invept %[d], %[t]", [d]"m"(descriptor), [t]"r"(op->type));
	}
}

static void l2_code(void)
{
	for (;;) {
		GUEST_ASSERT_EQ(READ_ONCE(*world.page), OLD);
		WRITE_ONCE(*world.entry, world.new);
		WRITE_ONCE(l2_vector, execute_op(&ops[number]));
		WRITE_ONCE(l2_value, READ_ONCE(*world.page));
		vmcall();
	}
}

static void set_controls(const struct op_in_l2 *op, u64 controls)
{
	u64 secondary = SECONDARY_EXEC_ENABLE_VPID;

	if (this_cpu_has(X86_FEATURE_INVPCID) && !op->no_invpcid)
		secondary |= SECONDARY_EXEC_ENABLE_INVPCID;
	if (op->intercept)
		controls |= CPU_BASED_INVLPG_EXITING;
	controls |= CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL, controls));
	GUEST_ASSERT(!vmwrite(SECONDARY_VM_EXEC_CONTROL, secondary));
}

static void skip(void)
{
	vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + vmreadz(VM_EXIT_INSTRUCTION_LEN));
}

static void drop_everything(void)
{
	u64 descriptor[2] = { };

	asm volatile("invvpid %0, %1" : : "m"(descriptor), "r"(2ul) : "cc", "memory");
}

static void run_op(int i, u64 controls, bool *launched)
{
	WRITE_ONCE(*world.entry, world.old);
	WRITE_ONCE(number, i);
	WRITE_ONCE(l2_value, NOTHING_SEEN);
	set_controls(&ops[i], controls);
	drop_everything();
	GUEST_ASSERT(!(*launched ? vmresume() : vmlaunch()));
	*launched = true;
	seen[i].reason = vmreadz(VM_EXIT_REASON);
	seen[i].qualification = vmreadz(EXIT_QUALIFICATION);
	if (seen[i].reason != EXIT_REASON_VMCALL) {
		skip();
		/* L1 drops everything for L2. */
		drop_everything();
		GUEST_ASSERT(!vmresume());
	}
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	skip();
	seen[i].vector = READ_ONCE(l2_vector);
	seen[i].value = READ_ONCE(l2_value);
}

static void l1_code(struct vmx_pages *vmx)
{
	bool launched = false;
	u64 controls;
	int i;

	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, l2_code);
	GUEST_ASSERT(!vmwrite(VIRTUAL_PROCESSOR_ID, VPID12));
	controls = vmreadz(CPU_BASED_VM_EXEC_CONTROL);
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		if (ops[i].insn != INVPCID || this_cpu_has(X86_FEATURE_INVPCID))
			run_op(i, controls, &launched);
	}
	GUEST_DONE();
}

static void make_world(struct kvm_vm *vm)
{
	gva_t pages = vm_alloc_pages(vm, 2);

	world.page = (u64 *)pages;
	world.entry = show_entry(vm, vm_get_pte(vm, pages));
	world.old = *vm_get_pte(vm, pages);
	world.new = *vm_get_pte(vm, pages + PAGE_SIZE);
	*(u64 *)addr_gva2hva(vm, pages) = OLD;
	*(u64 *)addr_gva2hva(vm, pages + PAGE_SIZE) = NEW;
	sync_global_to_guest(vm, world);
}

static void judge(struct machine *m, const struct op_in_l2 *op, const struct seen *got)
{
	u64 reason = op->reason ?: EXIT_REASON_VMCALL;
	bool good = got->reason == reason && got->vector == op->vector;

	if (!op->vector)
		good = good && got->value == NEW;
	if (op->reason == EXIT_REASON_INVLPG)
		good = good && got->qualification == (u64)world.page;
	m->cases++;
	if (good)
		return;
	m->failed++;
	printf("%s: %s: wanted exit %lu, vector %d, got exit %lu, vector %lu, page %#lx\n",
	       m->group, op->name, reason, op->vector, got->reason, got->vector, got->value);
}

void in_l2(struct machine *m)
{
	struct kvm_vcpu *vcpu;
	gva_t vmx_gva;
	struct kvm_vm *vm;
	int i;

	vm = vm_create_with_one_vcpu(&vcpu, l1_code);
	vcpu_alloc_vmx(vm, &vmx_gva);
	vcpu_args_set(vcpu, 1, vmx_gva);
	make_world(vm);
	run_to_the_end(vcpu);
	sync_global_from_guest(vm, seen);
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		if (seen[i].reason)
			judge(m, &ops[i], &seen[i]);
	}
	kvm_vm_free(vm);
}
