/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header has functions for the guests that measure.  A guest reads the TSC,
 * executes an instruction that exits to KVM, and reads the TSC again.
 *
 * In an emulator in which an instruction is a tick, the difference is the number of
 * executed instructions, KVM's among them.  Interrupts of the host fall into some turns,
 * so the least of all turns is the cost.  On hardware a tick is a cycle of the TSC; the
 * fences keep the code between the two readings.
 *
 * A guest prints "NAME LEAST MEDIAN" for each measurement.  The first one, "nothing", has
 * only the two readings.
 */
#ifndef VMX_VPID_MEASURE_H
#define VMX_VPID_MEASURE_H

#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define MAX_TURNS	1000

static u64 samples[MAX_TURNS];
static u64 turns = 200;

static __always_inline u64 now(void)
{
	u32 low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return low | (u64)high << 32;
}

/* Sort the samples, the least first. */
static void sort_samples(u64 count)
{
	u64 i, j, sample;

	for (i = 1; i < count; i++) {
		sample = samples[i];
		for (j = i; j && samples[j - 1] > sample; j--)
			samples[j] = samples[j - 1];
		samples[j] = sample;
	}
}

static inline void report(const char *name)
{
	sort_samples(turns);
	GUEST_PRINTF("%s %lu %lu\n", name, samples[0], samples[turns / 2]);
}

/* `code` may use `turn`; `before` runs before the first reading of the TSC. */
#define measure_after(name, before, code)		\
do {							\
	u64 turn, start;				\
							\
	for (turn = 0; turn < turns; turn++) {		\
		before;					\
		start = now();				\
		code;					\
		samples[turn] = now() - start;		\
	}						\
	report(name);					\
} while (0)

#define measure(name, code)	measure_after(name, (void)0, code)

static inline void do_cpuid(void)
{
	u32 eax, ebx, ecx, edx;

	cpuid(0, &eax, &ebx, &ecx, &edx);
}

static inline void parse_turns(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "t:")) != -1) {
		if (option != 't')
			exit(2);
		turns = atoi_positive("turns", optarg);
	}
	TEST_ASSERT(turns <= MAX_TURNS, "at most %lu turns", (unsigned long)MAX_TURNS);
}

/* Run a guest until it is done, and print its output. */
static inline void run_to_end(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	sync_global_to_guest(vm, turns);
	for (;;) {
		vcpu_run(vcpu);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_PRINTF:
			REPORT_GUEST_PRINTF(uc);
			break;
		case UCALL_DONE:
			kvm_vm_free(vm);
			return;
		default:
			REPORT_GUEST_ASSERT(uc);
		}
	}
}

#endif
