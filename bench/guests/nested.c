// SPDX-License-Identifier: GPL-2.0
/*
 * This guest measures the cost of INVVPID and INVEPT for a hypervisor in a guest: L1
 * enters VMX operation and executes each type.  No L2 has run, so KVM has no root of an
 * L2, and most of the cost is the exit, the checks and the operand.
 *
 * Usage: nested [-t TURNS]
 */
#include "measure.h"
#include "vmx.h"

#define VPID12	1
#define ADDRESS	0x400000ul
/* An EPT pointer that KVM accepts: write-back, four levels. */
#define EPTP	(0x1000000ul | 6 | 3 << 3)

struct operand {
	u64 low;
	u64 high;
} __aligned(16);

static __always_inline void do_invvpid(u64 type, const struct operand *operand)
{
	bool refused;

	asm volatile("invvpid %[operand], %[type]"
		     : "=@ccbe"(refused) : [operand] "m"(*operand), [type] "r"(type) : "memory");
	GUEST_ASSERT(!refused);
}

static __always_inline void do_invept(u64 type, const struct operand *operand)
{
	bool refused;

	asm volatile("invept %[operand], %[type]"
		     : "=@ccbe"(refused) : [operand] "m"(*operand), [type] "r"(type) : "memory");
	GUEST_ASSERT(!refused);
}

static void guest_code(struct vmx_pages *vmx, bool ept)
{
	struct operand context = { VPID12, ADDRESS };
	struct operand root = { EPTP, 0 };

	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	measure("nothing", (void)0);
	measure("cpuid", do_cpuid());
	measure("invvpid_0", do_invvpid(0, &context));
	measure("invvpid_1", do_invvpid(1, &context));
	measure("invvpid_2", do_invvpid(2, &context));
	measure("invvpid_3", do_invvpid(3, &context));
	if (ept) {
		measure("invept_1", do_invept(1, &root));
		root.low = 0;
		measure("invept_2", do_invept(2, &root));
	}
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	gva_t vmx;

	parse_turns(argc, argv);
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));
	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	vcpu_alloc_vmx(vm, &vmx);
	vcpu_args_set(vcpu, 2, vmx, (u64)kvm_cpu_has_ept());
	run_to_end(vm, vcpu);
	return 0;
}
