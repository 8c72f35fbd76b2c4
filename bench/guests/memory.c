// SPDX-License-Identifier: GPL-2.0
/*
 * This guest measures the cost of EPT violations and misconfigurations: the guest
 * writes to memory that its EPT does not map yet, or to a device.
 *
 * The host has a held page, and only the guest's EPT lacks the page; the host has no
 * fresh page yet.  KVM's shortest exit is a write to a device whose eventfd has no
 * length.  If the eventfd has a length, KVM has to decode the instruction.
 *
 * Usage: memory [-t TURNS]
 */
#include <sys/eventfd.h>

#include "measure.h"

/* Held pages, fresh pages, a device without a length, a device with a length. */
#define HELD		0x40000000ul
#define FRESH		0x48000000ul
#define TOLD_ANY	0xd0000000ul
#define TOLD_LENGTH	(TOLD_ANY + PAGE_SIZE)

static __always_inline void write_word(u64 address)
{
	asm volatile("movl $1, (%0)" : : "r"(address) : "memory");
}

static void guest_code(void)
{
	measure("nothing", (void)0);
	measure("cpuid", do_cpuid());
	measure("violation_held", write_word(HELD + turn * PAGE_SIZE));
	measure("violation_fresh", write_word(FRESH + turn * PAGE_SIZE));
	/* The first access to each device is a violation. */
	measure("mmio_fast", write_word(TOLD_ANY));
	measure("mmio_length", write_word(TOLD_LENGTH));
	GUEST_DONE();
}

static void add_memory(struct kvm_vm *vm, int slot, u64 address, bool held)
{
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, address, slot, MAX_TURNS, 0);
	virt_map(vm, address, address, MAX_TURNS);
	if (held)
		memset(addr_gpa2hva(vm, address), 1, MAX_TURNS * PAGE_SIZE);
}

static void add_device(struct kvm_vm *vm, u64 address, u32 length)
{
	struct kvm_ioeventfd ioeventfd = {
		.addr = address,
		.len = length,
		.fd = eventfd(0, EFD_NONBLOCK),
	};

	TEST_ASSERT(ioeventfd.fd >= 0, "eventfd: %s", strerror(errno));
	vm_ioctl(vm, KVM_IOEVENTFD, &ioeventfd);
	virt_pg_map(vm, address, address);
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	parse_turns(argc, argv);
	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	add_memory(vm, 10, HELD, true);
	add_memory(vm, 11, FRESH, false);
	add_device(vm, TOLD_ANY, 0);
	add_device(vm, TOLD_LENGTH, sizeof(u32));
	run_to_end(vm, vcpu);
	return 0;
}
