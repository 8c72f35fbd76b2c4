// SPDX-License-Identifier: GPL-2.0
/*
 * This program runs guests that stay in one way of paging, so that a test can read
 * KVM's roots.
 *
 * Usage: roots [-2 | -e | -u]
 *   no option  load four CR3s, each with a PCID of its own if the CPU has PCIDs, and
 *              stay with the last
 *   -2         a hypervisor whose L2 has no EPT
 *   -e         a hypervisor whose L2 has an EPT
 *   -u         paging off
 * SIGTERM ends the program, with status 0.  Status 4: the machine lacks a feature.
 */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "vmx.h"

#define ROOTS	4

static u64 roots[ROOTS];
static atomic_bool ended;

static void end(int signal)
{
	atomic_store(&ended, true);
}

/* Exit to user space again and again, also from L2: an emulator may not interrupt the guest. */
static void stay(void)
{
	for (;;)
		GUEST_SYNC(0);
}

static void load_roots(void)
{
	bool pcids = this_cpu_has(X86_FEATURE_PCID);
	int i;

	if (pcids)
		set_cr4(get_cr4() | X86_CR4_PCIDE);
	for (i = 0; i < ROOTS; i++)
		set_cr3(roots[i] | (pcids ? i : 0));
	stay();
}

static void run_l2(struct vmx_pages *vmx)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, stay);
	GUEST_ASSERT(!vmlaunch());
	/* No action of L2 exits to L1. */
	GUEST_FAIL("L2 exited to L1: exit reason %lu", vmreadz(VM_EXIT_REASON));
}

/* The first root is the guest's own, the others are copies. */
static void make_roots(struct kvm_vm *vm)
{
	int i;

	for (i = 0; i < ROOTS; i++) {
		roots[i] = vm->mmu.pgd;
		if (!i)
			continue;
		roots[i] = vm_alloc_page_table(vm);
		memcpy(addr_gpa2hva(vm, roots[i]), addr_gpa2hva(vm, vm->mmu.pgd), PAGE_SIZE);
	}
	sync_global_to_guest(vm, roots);
}

/* 32-bit code that never ends, with paging off; CPUID exits, so that the host can interrupt. */
static void stop_paging(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
	gva_t page = vm_alloc_page(vm);
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	memcpy(addr_gva2hva(vm, page), "\x0f\xa2\xeb\xfc", 4);
	vcpu_sregs_get(vcpu, &sregs);
	sregs.cr0 &= ~X86_CR0_PG;
	sregs.efer &= ~(EFER_LMA | EFER_LME);
	sregs.cs.l = 0;
	sregs.cs.db = 1;
	vcpu_sregs_set(vcpu, &sregs);
	vcpu_regs_get(vcpu, &regs);
	regs.rip = addr_gva2gpa(vm, page);
	vcpu_regs_set(vcpu, &regs);
}

static void run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	while (!atomic_load(&ended)) {
		if (__vcpu_run(vcpu)) {
			TEST_ASSERT(errno == EINTR, "KVM_RUN failed: %d", errno);
			continue;
		}
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		if (get_ucall(vcpu, &uc) == UCALL_ABORT)
			REPORT_GUEST_ASSERT(uc);
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = end };
	int option = getopt(argc, argv, "2eu");
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	gva_t vmx;

	if (option == '?') {
		fprintf(stderr, "usage: %s [-2 | -e | -u]\n", argv[0]);
		return 1;
	}
	TEST_REQUIRE(option != '2' || kvm_cpu_has(X86_FEATURE_VMX));
	TEST_REQUIRE(option != 'e' || kvm_cpu_has_ept());
	sigaction(SIGTERM, &action, NULL);

	vm = vm_create_with_one_vcpu(&vcpu, option == -1 ? (void *)load_roots : (void *)run_l2);
	if (option == 'e')
		vm_enable_tdp(vm);
	if (option == '2' || option == 'e') {
		vcpu_alloc_vmx(vm, &vmx);
		vcpu_args_set(vcpu, 1, vmx);
	}
	if (option == 'e')
		tdp_identity_map_default_memslots(vm);
	if (option == 'u')
		stop_paging(vm, vcpu);
	if (option == -1)
		make_roots(vm);
	run(vcpu);
	kvm_vm_free(vm);
	return 0;
}
