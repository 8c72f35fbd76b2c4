// SPDX-License-Identifier: GPL-2.0
/*
 * This program creates and destroys VMs for a while.
 *
 * The guest of every second VM turns on VMX, for which KVM allocates a second VPID;
 * every fourth VM never runs.
 *
 * Usage: churn [-s SECONDS] [-n VMS]
 *   -n   stop after this number of VMs
 */
#include <time.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "vmx.h"

static void plain_guest(void)
{
	GUEST_DONE();
}

static void vmx_guest(struct vmx_pages *vmx)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_DONE();
}

static void run_to_end(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	/* Livepatch may interrupt KVM_RUN by a fake signal. */
	while (__vcpu_run(vcpu))
		TEST_ASSERT(errno == EINTR, "KVM_RUN failed: %d", errno);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT(uc.cmd == UCALL_DONE, "Unexpected ucall %lu", uc.cmd);
}

static void one_vm(unsigned long turn)
{
	bool vmx = kvm_cpu_has(X86_FEATURE_VMX) && turn % 2;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	gva_t pages;

	vm = vm_create_with_one_vcpu(&vcpu, vmx ? (void *)vmx_guest : (void *)plain_guest);
	vm_vcpu_add(vm, 1, plain_guest);
	if (vmx) {
		vcpu_alloc_vmx(vm, &pages);
		vcpu_args_set(vcpu, 1, pages);
	}
	if (turn % 4)
		run_to_end(vcpu);
	kvm_vm_free(vm);
}

int main(int argc, char **argv)
{
	unsigned long limit = -1ul, turn;
	time_t end = time(NULL) + 2;
	int option;

	while ((option = getopt(argc, argv, "s:n:")) != -1) {
		switch (option) {
		case 's':
			end = time(NULL) + atoi_positive("seconds", optarg);
			break;
		case 'n':
			limit = atoi_positive("VMs", optarg);
			break;
		default:
			fprintf(stderr, "usage: %s [-s SECONDS] [-n VMS]\n", argv[0]);
			return 1;
		}
	}

	for (turn = 0; turn < limit && time(NULL) < end; turn++)
		one_vm(turn);

	printf("%lu VMs\n", turn);
	return 0;
}
