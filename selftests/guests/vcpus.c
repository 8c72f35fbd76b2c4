// SPDX-License-Identifier: GPL-2.0
/*
 * This program creates and destroys vCPUs that never run.
 *
 * Each vCPU has a VPID.  An ioctl puts every second vCPU into VMX operation, and that
 * vCPU has a second VPID.  No VM has memory, so KVM does little else.
 *
 * Usage: vcpus [-n CREATIONS] [-p VCPUS] [-s SECONDS] [-w]
 *   -n   stop after this number of vCPUs (100)
 *   -p   vCPUs of a VM (10)
 *   -s   continue for this time; -n has no effect then
 *   -w   create all vCPUs of one VM, and wait for a signal
 */
#include <time.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

/* The address of L1's VMXON region, which KVM does not access. */
#define VMXON_REGION	0x1000

static int dev_kvm;
static const struct kvm_cpuid2 *supported;

static void enter_vmx_operation(int vcpu)
{
	struct kvm_nested_state state = {
		.format = KVM_STATE_NESTED_FORMAT_VMX,
		.size = sizeof(state),
		.hdr.vmx.vmxon_pa = VMXON_REGION,
		.hdr.vmx.vmcs12_pa = -1ull,
	};

	TEST_ASSERT(!ioctl(vcpu, KVM_SET_CPUID2, supported), "KVM_SET_CPUID2 failed: %d", errno);
	TEST_ASSERT(!ioctl(vcpu, KVM_SET_NESTED_STATE, &state),
		    "KVM_SET_NESTED_STATE failed: %d", errno);
}

/* Create a VM with vCPUs; return the number of vCPUs. */
static int create(int nr, bool vmx, int *fds)
{
	int vm = ioctl(dev_kvm, KVM_CREATE_VM, 0);
	int i;

	TEST_ASSERT(vm >= 0, "KVM_CREATE_VM failed: %d", errno);
	fds[0] = vm;
	for (i = 1; i <= nr; i++) {
		fds[i] = ioctl(vm, KVM_CREATE_VCPU, i - 1);
		TEST_ASSERT(fds[i] >= 0, "KVM_CREATE_VCPU failed: %d", errno);
		if (vmx && i % 2)
			enter_vmx_operation(fds[i]);
	}
	return nr;
}

int main(int argc, char **argv)
{
	int limit = 100, per_vm = 10, seconds = 0, created = 0, option, i;
	bool vmx = kvm_cpu_has(X86_FEATURE_VMX), wait = false;
	time_t end;
	int *fds;

	while ((option = getopt(argc, argv, "n:p:s:w")) != -1) {
		switch (option) {
		case 'n':
			limit = atoi_positive("vCPUs", optarg);
			break;
		case 'p':
			per_vm = atoi_positive("vCPUs of a VM", optarg);
			break;
		case 's':
			seconds = atoi_positive("seconds", optarg);
			break;
		case 'w':
			wait = true;
			break;
		default:
			fprintf(stderr, "usage: %s [-n CREATIONS] [-p VCPUS] [-s SECONDS] [-w]\n",
				argv[0]);
			return 1;
		}
	}

	dev_kvm = open_kvm_dev_path_or_exit();
	supported = kvm_get_supported_cpuid();
	fds = calloc(per_vm + 1, sizeof(*fds));
	TEST_ASSERT(fds, "out of memory");
	end = time(NULL) + seconds;

	while (seconds ? time(NULL) < end : created < limit) {
		created += create(per_vm, vmx, fds);
		if (wait) {
			printf("waiting\n");
			fflush(stdout);
			pause();
		}
		for (i = per_vm; i >= 0; i--)
			close(fds[i]);
	}

	printf("%d vCPUs\n", created);
	return 0;
}
