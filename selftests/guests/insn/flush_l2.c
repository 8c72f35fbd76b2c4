// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of the effect of INVVPID and INVEPT on L2: L2 reads a page,
 * L1 changes the page's entry in the page table or in the EPT and executes the
 * instruction, and L2 reads again.
 *
 * L2 runs on L1's page tables.  The EPT maps all memory one to one, and has two roots,
 * and so two EP4TAs, with the same tables below.
 */
#include "groups.h"

#define OLD		0x1111
#define NEW		0x2222
#define NOT_OLD		0x3333	/* the first read did not return OLD */
#define VPID12		7
#define AD		BIT_ULL(6)

enum how { BY_INVVPID, BY_INVEPT, BY_NOTHING };

static const struct flush {
	const char *name;
	enum how how;
	u64 type;
	bool ept;		/* L1 uses EPT; without INVVPID, its entry changes */
	bool other_root;	/* L2 runs on another root in between */
	bool other_ad;		/* L2 runs on the same root with the other A/D flag in between */
	bool name_other;	/* INVEPT has the EPTP that was used in between */
} flushes[] = {
	{ "INVVPID type 0", BY_INVVPID, 0 },
	{ "INVVPID type 1", BY_INVVPID, 1 },
	{ "INVVPID type 2", BY_INVVPID, 2 },
	{ "INVVPID type 3", BY_INVVPID, 3 },
	{ "INVVPID type 0, L1 uses EPT", BY_INVVPID, 0, .ept = true },
	{ "INVVPID type 1, L1 uses EPT", BY_INVVPID, 1, .ept = true },
	{ "INVVPID type 2, L1 uses EPT", BY_INVVPID, 2, .ept = true },
	{ "INVVPID type 3, L1 uses EPT", BY_INVVPID, 3, .ept = true },
	{ "INVEPT type 1", BY_INVEPT, 1, .ept = true },
	{ "INVEPT type 2", BY_INVEPT, 2, .ept = true },
	{ "INVEPT type 1, previous root", BY_INVEPT, 1, .ept = true, .other_root = true },
	{ "INVEPT type 2, previous root", BY_INVEPT, 2, .ept = true, .other_root = true },
	{ "INVEPT type 1, EPTP with other A/D between", BY_INVEPT, 1, .ept = true,
	  .other_ad = true },
	{ "INVEPT type 2, EPTP with other A/D between", BY_INVEPT, 2, .ept = true,
	  .other_ad = true },
	{ "INVEPT type 1, named with other A/D", BY_INVEPT, 1, .ept = true, .other_ad = true,
	  .name_other = true },
	/* Without an instruction the old translation has to stay. */
	{ "nothing", BY_NOTHING },
	{ "nothing, L1 uses EPT", BY_NOTHING, .ept = true },
	{ "nothing, previous root", BY_NOTHING, .ept = true, .other_root = true },
};

struct world {
	u64 *page;
	u64 *entry[2];		/* of the page tables, and of the EPT */
	u64 old[2], new[2];
	u64 eptp, other_eptp;
	bool has_ad;
};

static u64 seen[ARRAY_SIZE(flushes)];
static u64 *l2_page;
static u64 l2_value;

static void l2_code(void)
{
	for (;;) {
		WRITE_ONCE(l2_value, READ_ONCE(*l2_page));
		vmcall();
	}
}

static u64 run_l2(bool *launched)
{
	WRITE_ONCE(l2_value, 0);
	GUEST_ASSERT(!(*launched ? vmresume() : vmlaunch()));
	*launched = true;
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + vmreadz(VM_EXIT_INSTRUCTION_LEN));
	return READ_ONCE(l2_value);
}

static void execute_flush(const struct flush *flush, struct world *world, u64 eptp)
{
	u64 descriptor[2] = { VPID12, (u64)world->page };
	bool failed = false;

	if (flush->how == BY_INVVPID) {
		asm volatile("invvpid %1, %2; setna %0" : "=qm"(failed)
			     : "m"(descriptor), "r"(flush->type) : "cc", "memory");
	} else if (flush->how == BY_INVEPT) {
		descriptor[0] = eptp;
		descriptor[1] = 0;
		asm volatile("invept %1, %2; setna %0" : "=qm"(failed)
			     : "m"(descriptor), "r"(flush->type) : "cc", "memory");
	}
	GUEST_ASSERT(!failed);
}

static void use_ept(u64 eptp)
{
	u64 controls = SECONDARY_EXEC_ENABLE_VPID | (eptp ? SECONDARY_EXEC_ENABLE_EPT : 0);

	GUEST_ASSERT(!vmwrite(SECONDARY_VM_EXEC_CONTROL, controls));
	if (eptp)
		GUEST_ASSERT(!vmwrite(EPT_POINTER, eptp));
}

/* Return the value that L2 reads last, 0 if the case is not for this CPU. */
static u64 once(struct world *world, const struct flush *flush, bool *launched)
{
	u64 main_eptp = flush->ept ? world->eptp : 0, other = main_eptp;
	int i = flush->ept && flush->how != BY_INVVPID;
	u64 value;

	if ((flush->ept && !world->eptp) || (flush->other_ad && !world->has_ad))
		return 0;
	if (flush->other_root)
		other = world->other_eptp;
	if (flush->other_ad)
		other = main_eptp ^ AD;
	WRITE_ONCE(*world->entry[i], world->old[i]);
	use_ept(main_eptp);
	execute_flush(&flushes[2], world, 0);
	if (main_eptp)
		execute_flush(&(struct flush){ .how = BY_INVEPT, .type = 2 }, world, 0);
	value = run_l2(launched);
	if (other != main_eptp) {
		use_ept(other);
		GUEST_ASSERT_EQ(run_l2(launched), OLD);
	}
	WRITE_ONCE(*world->entry[i], world->new[i]);
	execute_flush(flush, world, flush->name_other ? other : main_eptp);
	use_ept(main_eptp);
	value = value == OLD ? run_l2(launched) : NOT_OLD;
	WRITE_ONCE(*world->entry[i], world->old[i]);
	return value;
}

static void l1_code(struct vmx_pages *vmx, struct world *world)
{
	bool launched = false;
	u64 controls;
	int i;

	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, l2_code);
	controls = vmreadz(CPU_BASED_VM_EXEC_CONTROL);
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL,
			      controls | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS));
	GUEST_ASSERT(!vmwrite(VIRTUAL_PROCESSOR_ID, VPID12));
	l2_page = world->page;
	for (i = 0; i < ARRAY_SIZE(flushes); i++)
		seen[i] = once(world, &flushes[i], &launched);
	GUEST_DONE();
}

/* Call this last: the copy of the root lacks memory that is mapped later. */
static void make_ept(struct kvm_vm *vm, struct world *world, struct vmx_pages *vmx, gva_t pages)
{
	u64 caps = kvm_get_feature_msr(MSR_IA32_VMX_EPT_VPID_CAP);
	gva_t copy = vm_alloc_page(vm);
	u64 *entry;

	tdp_identity_map_default_memslots(vm);
	entry = tdp_get_pte(vm, addr_gva2gpa(vm, pages));
	world->entry[1] = show_entry(vm, entry);
	world->old[1] = *entry;
	world->new[1] = *tdp_get_pte(vm, addr_gva2gpa(vm, pages + PAGE_SIZE));
	world->has_ad = caps & VMX_EPT_VPID_CAP_AD_BITS;
	world->eptp = vmx->eptp_gpa | 3 << 3 | 6 | (world->has_ad ? AD : 0);
	memcpy(addr_gva2hva(vm, copy), addr_gpa2hva(vm, vmx->eptp_gpa), PAGE_SIZE);
	world->other_eptp = (world->eptp & ~PAGE_MASK) | addr_gva2gpa(vm, copy);
}

static void make_world(struct kvm_vm *vm, struct kvm_vcpu *vcpu, bool ept)
{
	gva_t world_gva = vm_alloc_page(vm), pages = vm_alloc_pages(vm, 2), vmx_gva;
	struct world *world = addr_gva2hva(vm, world_gva);
	struct vmx_pages *vmx;

	if (ept)
		vm_enable_ept(vm);
	vmx = vcpu_alloc_vmx(vm, &vmx_gva);
	world->page = (u64 *)pages;
	world->old[0] = *vm_get_pte(vm, pages);
	world->new[0] = *vm_get_pte(vm, pages + PAGE_SIZE);
	world->entry[0] = show_entry(vm, vm_get_pte(vm, pages));
	*(u64 *)addr_gva2hva(vm, pages) = OLD;
	*(u64 *)addr_gva2hva(vm, pages + PAGE_SIZE) = NEW;
	if (ept)
		make_ept(vm, world, vmx, pages);
	vcpu_args_set(vcpu, 2, vmx_gva, world_gva);
}

/* Return whether the entry that changes is in L1's EPT, which KVM shadows. */
static bool tables_are_kvms(const struct flush *flush)
{
	return flush->ept && flush->how != BY_INVVPID;
}

void flush_l2(struct machine *m)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int i;

	vm = vm_create_with_one_vcpu(&vcpu, l1_code);
	make_world(vm, vcpu, m->ept);
	run_to_the_end(vcpu);
	sync_global_from_guest(vm, seen);
	for (i = 0; i < ARRAY_SIZE(flushes); i++) {
		/* The case is not for this CPU, or needs EPT. */
		if (!seen[i] && (!m->ept || flushes[i].other_ad))
			continue;
		/*
		 * Without an instruction L2 has to read the old page, or the other
		 * cases prove nothing.  With EPT the emulated CPU itself walks L2's
		 * page tables and drops translations at each exit, so INVVPID has no
		 * visible effect.
		 */
		if (m->ept && !tables_are_kvms(&flushes[i]))
			continue;
		count_effect(m, flushes[i].name,
			     seen[i] == (flushes[i].how == BY_NOTHING ? OLD : NEW), seen[i]);
	}
	kvm_vm_free(vm);
}
