// SPDX-License-Identifier: GPL-2.0
/*
 * What an exit of the guest costs it: instructions that exit to KVM, each between
 * two readings of the TSC.
 *
 * In an emulator in which an instruction is a tick, a difference is the number of
 * instructions that were executed, KVM's among them.  Interrupts of the host's
 * fall into some turns, so that the least of all turns is the cost.
 *
 * Usage: roundtrip [-t TURNS]
 * Prints "NAME LEAST MEDIAN" for each; the two readings themselves are the first.
 */
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define MAX_TURNS	1000

static u64 samples[MAX_TURNS];
static u64 turns = 200;

/* The operand of INVPCID: of PCID 0, and an address that is mapped. */
static struct {
	u64 pcid;
	u64 address;
} operand __aligned(16);

static __always_inline u64 now(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low | (u64)high << 32;
}

static void report(const char *name)
{
	u64 i, j, sample;

	for (i = 1; i < turns; i++) {
		sample = samples[i];
		for (j = i; j && samples[j - 1] > sample; j--)
			samples[j] = samples[j - 1];
		samples[j] = sample;
	}
	GUEST_PRINTF("%s %lu %lu\n", name, samples[0], samples[turns / 2]);
}

#define measure(name, code)				\
do {							\
	u64 turn, start;				\
							\
	for (turn = 0; turn < turns; turn++) {		\
		start = now();				\
		code;					\
		samples[turn] = now() - start;		\
	}						\
	report(name);					\
} while (0)

static void do_cpuid(void)
{
	u32 eax, ebx, ecx, edx;

	cpuid(0, &eax, &ebx, &ecx, &edx);
}

static __always_inline void flush_pcids(u64 type)
{
	asm volatile("invpcid %0, %1" : : "m"(operand), "r"(type) : "memory");
}

/* The figures differ by more than the instruction: with PCIDs KVM looks through its roots. */
static void measure_invpcid(bool pcide)
{
	measure(pcide ? "invpcid_0_pcide" : "invpcid_0", flush_pcids(0));
	measure(pcide ? "invpcid_1_pcide" : "invpcid_1", flush_pcids(1));
	measure(pcide ? "invpcid_2_pcide" : "invpcid_2", flush_pcids(2));
	measure(pcide ? "invpcid_3_pcide" : "invpcid_3", flush_pcids(3));
}

static void guest_code(void)
{
	/* Read once: with shadow paging that is an exit of its own. */
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
	}
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct ucall uc;
	int option;

	while ((option = getopt(argc, argv, "t:")) != -1) {
		if (option != 't')
			return 2;
		turns = atoi_positive("turns", optarg);
	}
	TEST_ASSERT(turns <= MAX_TURNS, "at most %d turns", MAX_TURNS);

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	sync_global_to_guest(vm, turns);
	for (;;) {
		vcpu_run(vcpu);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_PRINTF:
			REPORT_GUEST_PRINTF(uc);
			break;
		case UCALL_DONE:
			kvm_vm_free(vm);
			return 0;
		default:
			REPORT_GUEST_ASSERT(uc);
		}
	}
}
