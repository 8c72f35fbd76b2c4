// SPDX-License-Identifier: GPL-2.0
/*
 * This guest measures the cost of an exit: the guest's instructions exit to KVM on
 * shadow paging.
 *
 * Usage: roundtrip [-t TURNS]
 */
#include "measure.h"

/* The operand of INVPCID: PCID 0, and a mapped address. */
static struct {
	u64 pcid;
	u64 address;
} operand __aligned(16);

static __always_inline void flush_pcids(u64 type)
{
	asm volatile("invpcid %0, %1" : : "m"(operand), "r"(type) : "memory");
}

/* With CR4.PCIDE set the cost is higher, since KVM compares the PCIDs of its roots. */
static void measure_invpcid(bool pcide)
{
	measure(pcide ? "invpcid_0_pcide" : "invpcid_0", flush_pcids(0));
	measure(pcide ? "invpcid_1_pcide" : "invpcid_1", flush_pcids(1));
	measure(pcide ? "invpcid_2_pcide" : "invpcid_2", flush_pcids(2));
	measure(pcide ? "invpcid_3_pcide" : "invpcid_3", flush_pcids(3));
}

/* The number of roots that KVM caches besides the current root. */
#define ROOTS	3
/* The bit of CR3 that keeps the translations of the PCID. */
#define NOFLUSH	BIT_ULL(63)

/* CR3 values of address spaces that differ in their PCID and top table only. */
static u64 spaces[ROOTS];

/* Load each address space and return to `cr3`, without a flush. */
static void fill_roots(u64 cr3)
{
	int i;

	for (i = 0; i < ROOTS; i++)
		set_cr3(spaces[i] | NOFLUSH);
	set_cr3(cr3 | NOFLUSH);
}

/*
 * Measure with cached roots of other PCIDs.  Each instruction drops some or all of these
 * roots, so each turn begins with a load of all address spaces.
 */
static void measure_roots(u64 cr3)
{
	operand.pcid = 1;
	measure_after("invpcid_0_roots", fill_roots(cr3), flush_pcids(0));
	measure_after("invpcid_1_roots", fill_roots(cr3), flush_pcids(1));
	measure_after("invpcid_2_roots", fill_roots(cr3), flush_pcids(2));
	measure_after("invpcid_3_roots", fill_roots(cr3), flush_pcids(3));
	measure_after("mov_cr3_roots", fill_roots(cr3),
		      set_cr3(spaces[0] | NOFLUSH));
}

static void guest_code(void)
{
	/* Read CR3 once: on shadow paging the read is an exit of its own. */
	u64 cr3 = get_cr3();

	operand.address = (u64)&operand;

	measure("nothing", (void)0);
	measure("cpuid", do_cpuid());
	measure("invlpg", invlpg(operand.address));
	measure("mov_cr3", set_cr3(cr3));
	if (this_cpu_has(X86_FEATURE_INVPCID)) {
		measure_invpcid(false);
		set_cr4(get_cr4() | X86_CR4_PCIDE);
		measure_invpcid(true);
		measure_roots(cr3);
	}
	GUEST_DONE();
}

static void make_spaces(struct kvm_vm *vm)
{
	int i;

	for (i = 0; i < ROOTS; i++) {
		gpa_t table = vm_alloc_page_table(vm);

		memcpy(addr_gpa2hva(vm, table), addr_gpa2hva(vm, vm->mmu.pgd), PAGE_SIZE);
		spaces[i] = table | (i + 1);
	}
	sync_global_to_guest(vm, spaces);
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	parse_turns(argc, argv);
	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	make_spaces(vm);
	run_to_end(vm, vcpu);
	return 0;
}
