// SPDX-License-Identifier: GPL-2.0
/*
 * This guest has an EPT with known contents.
 *
 * The guest accesses all of this memory:
 *   0x80000000	2 MiB of pages of 4 KiB, with 2 MiB behind that the guest does not access
 *   0xc0000000	8 MiB of pages of 2 MiB, if the host has large pages
 *   0xe0000000	a page of device registers
 * With -n the guest runs an L2, whose EPT maps the first 64 KiB of 0x80000000 at
 * 0x80300000.
 *
 * Usage: known [-l] [-n] [-b]
 *   -l   turn on dirty logging for the large pages, which splits them
 *   -n   run L2, so that the vCPU is in L2 in the end
 *   -b   continue: drop memory, start and stop dirty logging, access all memory again
 * When the guest has accessed its memory, the program prints "ready" and waits for
 * SIGTERM.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "vmx.h"

#define SMALL_SLOT	10
#define SMALL		0x80000000ul
#define SMALL_SIZE	(4ul << 20)
#define SMALL_USED	(2ul << 20)
#define LARGE_SLOT	11
#define LARGE		0xc0000000ul
#define LARGE_SIZE	(8ul << 20)
#define REGISTERS	0xe0000000ul
#define L2_SEES		0x80300000ul
#define L2_SIZE		(64ul << 10)

static atomic_bool ended;

static void end(int signal)
{
	atomic_store(&ended, true);
}

static void touch(u64 start, u64 size)
{
	u64 at;

	for (at = start; at < start + size; at += PAGE_SIZE)
		WRITE_ONCE(*(u64 *)at, at);
}

static void l2_code(void)
{
	for (;;) {
		touch(L2_SEES, L2_SIZE);
		GUEST_SYNC(2);
	}
}

static void guest_code(struct vmx_pages *vmx)
{
	if (vmx) {
		GUEST_ASSERT(prepare_for_vmx_operation(vmx));
		GUEST_ASSERT(load_vmcs(vmx));
		prepare_vmcs(vmx, l2_code);
	}
	touch(SMALL, SMALL_USED);
	touch(LARGE, LARGE_SIZE);
	READ_ONCE(*(u64 *)REGISTERS);
	if (vmx) {
		GUEST_ASSERT(!vmlaunch());
		/* No action of L2 exits to L1. */
		GUEST_FAIL("L2 exited to L1: exit reason %lu", vmreadz(VM_EXIT_REASON));
	}

	for (;;) {
		GUEST_SYNC(1);
		touch(SMALL, SMALL_USED);
		touch(LARGE, LARGE_SIZE);
	}
}

/* Run until the guest has accessed its memory. */
static void run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	for (;;) {
		/* Livepatch may interrupt KVM_RUN by a fake signal. */
		if (__vcpu_run(vcpu) && errno == EINTR)
			continue;
		if (vcpu->run->exit_reason == KVM_EXIT_MMIO)
			continue;
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_SYNC:
			return;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
			break;
		default:
			TEST_FAIL("Unexpected ucall %lu", uc.cmd);
		}
	}
}

static void log_writes(struct kvm_vm *vm, bool on)
{
	vm_mem_region_set_flags(vm, LARGE_SLOT, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

static void become_hypervisor(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
	gva_t vmx;
	u64 at;

	vm_enable_tdp(vm);
	vcpu_alloc_vmx(vm, &vmx);
	vcpu_args_set(vcpu, 1, vmx);
	tdp_identity_map_default_memslots(vm);
	for (at = 0; at < L2_SIZE; at += PAGE_SIZE)
		tdp_map(vm, L2_SEES + at, SMALL + at, PAGE_SIZE);
}

int main(int argc, char **argv)
{
	bool log = false, nested = false, busy = false;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int option, round;

	while ((option = getopt(argc, argv, "lnb")) != -1) {
		switch (option) {
		case 'l':
			log = true;
			break;
		case 'n':
			nested = true;
			break;
		case 'b':
			busy = true;
			break;
		default:
			fprintf(stderr, "usage: %s [-l] [-n] [-b]\n", argv[0]);
			return 1;
		}
	}
	signal(SIGTERM, end);

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, SMALL, SMALL_SLOT,
				    SMALL_SIZE / PAGE_SIZE, 0);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS_THP, LARGE, LARGE_SLOT,
				    LARGE_SIZE / PAGE_SIZE, 0);
	virt_map(vm, SMALL, SMALL, SMALL_SIZE / PAGE_SIZE);
	virt_map(vm, LARGE, LARGE, LARGE_SIZE / PAGE_SIZE);
	virt_map(vm, REGISTERS, REGISTERS, 1);
	/* The EPT maps the memory that is allocated by now, with the page tables for all above. */
	if (nested)
		become_hypervisor(vm, vcpu);
	else
		vcpu_args_set(vcpu, 1, 0ul);
	/* Fill the memory before the guest accesses it, so that the host uses large pages. */
	memset(addr_gpa2hva(vm, SMALL), 0, SMALL_SIZE);
	memset(addr_gpa2hva(vm, LARGE), 0, LARGE_SIZE);

	run(vcpu);
	if (log)
		log_writes(vm, true);
	printf("ready\n");
	fflush(stdout);

	for (round = 1; !atomic_load(&ended); round++) {
		if (!busy) {
			usleep(20000);
			continue;
		}
		log_writes(vm, round & 1);
		madvise(addr_gpa2hva(vm, SMALL), SMALL_USED, MADV_DONTNEED);
		if (round % 4 == 0)
			madvise(addr_gpa2hva(vm, LARGE), LARGE_SIZE, MADV_DONTNEED);
		run(vcpu);
	}

	kvm_vm_free(vm);
	return 0;
}
