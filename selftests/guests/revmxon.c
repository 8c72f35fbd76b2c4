// SPDX-License-Identifier: GPL-2.0
/*
 * This guest is a hypervisor that leaves VMX operation and enters it again, with the
 * same vpid12.
 *
 * A life of L1 is the time from VMXON to VMXOFF.  In each life KVM allocates a new
 * vpid02, which another vCPU may have used in between.  So vpid02 has to be flushed
 * before L2 runs, although vpid12 did not change.  L1 maps another page between two
 * lives, and L2 has to read that page.
 *
 * Usage: revmxon [-n LIVES] [-m]
 *   -m   move to another CPU in each life: when L1 has entered VMX operation, and
 *        between two runs of L2
 */
#include <sched.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "vmx.h"

#define VPID12	9
#define PAGES	2

struct world {
	u64 *page;		/* the page that L2 reads */
	u64 *entry;		/* the address where L1 edits its page-table entry */
	u64 entries[PAGES];	/* the entries that map each frame */
	int lives;
};

static struct world world = { .lives = 4 };
static u64 read_by_l2;

static void l2_code(void)
{
	for (;;) {
		WRITE_ONCE(read_by_l2, READ_ONCE(*world.page));
		vmcall();
	}
}

static void l2_read(int frame)
{
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	GUEST_ASSERT_EQ(READ_ONCE(read_by_l2), frame + 1);
	WRITE_ONCE(read_by_l2, 0);
}

static void one_life(struct vmx_pages *vmx, int life)
{
	int frame = life % PAGES;

	WRITE_ONCE(*world.entry, world.entries[frame]);
	asm volatile("invlpg (%0)" : : "r"(world.page) : "memory");

	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_SYNC(life);
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, l2_code);
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
			      CPU_BASED_ACTIVATE_SECONDARY_CONTROLS));
	GUEST_ASSERT(!vmwrite(SECONDARY_VM_EXEC_CONTROL, SECONDARY_EXEC_ENABLE_VPID));
	GUEST_ASSERT(!vmwrite(VIRTUAL_PROCESSOR_ID, VPID12));
	GUEST_ASSERT(!vmlaunch());
	l2_read(frame);
	GUEST_SYNC(life);
	GUEST_ASSERT(!vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) +
					 vmreadz(VM_EXIT_INSTRUCTION_LEN)));
	GUEST_ASSERT(!vmresume());
	l2_read(frame);
	asm volatile("vmxoff" : : : "cc", "memory");
}

static void l1_code(struct vmx_pages *vmx)
{
	int life;

	for (life = 0; life < world.lives; life++)
		one_life(vmx, life);
	GUEST_DONE();
}

static void make_world(struct kvm_vm *vm)
{
	gva_t pages = vm_alloc_pages(vm, PAGES);
	gva_t window = vm_unused_gva_gap(vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR);
	gpa_t gpa = addr_hva2gpa(vm, vm_get_pte(vm, pages));
	int i;

	for (i = 0; i < PAGES; i++) {
		world.entries[i] = *vm_get_pte(vm, pages + i * PAGE_SIZE);
		*(u64 *)addr_gva2hva(vm, pages + i * PAGE_SIZE) = i + 1;
	}
	virt_pg_map(vm, window, gpa & PAGE_MASK);
	world.page = (u64 *)pages;
	world.entry = (u64 *)(window + (gpa & ~PAGE_MASK));
	sync_global_to_guest(vm, world);
}

/* Move to the next CPU; the first CPU follows the last. */
static void move(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((sched_getcpu() + 1) % sysconf(_SC_NPROCESSORS_ONLN), &set);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(set), &set),
		    "sched_setaffinity() failed: %d", errno);
}

int main(int argc, char **argv)
{
	struct ucall uc = {};
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	bool moves = false;
	gva_t vmx;
	int option;

	while ((option = getopt(argc, argv, "n:m")) != -1) {
		switch (option) {
		case 'n':
			world.lives = atoi_positive("lives", optarg);
			break;
		case 'm':
			moves = true;
			break;
		default:
			fprintf(stderr, "usage: %s [-n LIVES] [-m]\n", argv[0]);
			return 1;
		}
	}

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));
	vm = vm_create_with_one_vcpu(&vcpu, l1_code);
	vcpu_alloc_vmx(vm, &vmx);
	vcpu_args_set(vcpu, 1, vmx);
	make_world(vm);
	do {
		if (__vcpu_run(vcpu) && errno == EINTR)
			continue;
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		if (get_ucall(vcpu, &uc) == UCALL_ABORT)
			REPORT_GUEST_ASSERT(uc);
		if (moves)
			move();
	} while (uc.cmd != UCALL_DONE);
	kvm_vm_free(vm);

	printf("%d lives, L2 read as mapped in each\n", world.lives);
	return 0;
}
