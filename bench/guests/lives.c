// SPDX-License-Identifier: GPL-2.0
/*
 * This program measures the cost of creating and destroying vCPUs, by the number of
 * vCPUs in a VM.
 *
 * No VM has memory and no vCPU runs, so KVM does little else.  KVM destroys the vCPUs
 * with their VM, and not when their files are closed: so there is one figure for the
 * destruction of the VM and all its vCPUs.
 *
 * Usage: lives [-t TURNS]
 * Output: "NAME LEAST MEDIAN" for each number of vCPUs, in ticks of the TSC in this
 * program, the sum of all vCPUs.
 */
#include "measure.h"

#define MOST	1000

static const int numbers[] = { 1, 10, 100, MOST };
static u64 creations[MAX_TURNS], destructions[MAX_TURNS];
static int fds[MOST];
static int dev_kvm;

static void one_life(int nr, int turn)
{
	int vm = ioctl(dev_kvm, KVM_CREATE_VM, 0);
	u64 start;
	int i;

	TEST_ASSERT(vm >= 0, "KVM_CREATE_VM failed: %d", errno);
	start = now();
	for (i = 0; i < nr; i++)
		fds[i] = ioctl(vm, KVM_CREATE_VCPU, i);
	creations[turn] = now() - start;

	for (i = 0; i < nr; i++)
		TEST_ASSERT(fds[i] >= 0, "KVM_CREATE_VCPU of vCPU %d failed", i + 1);
	start = now();
	for (i = 0; i < nr; i++)
		close(fds[i]);
	close(vm);
	destructions[turn] = now() - start;
}

static void print(const char *what, int nr, const u64 *from, u64 count)
{
	memcpy(samples, from, count * sizeof(*from));
	sort_samples(count);
	printf("%s_%d %lu %lu\n", what, nr, (unsigned long)samples[0],
	       (unsigned long)samples[count / 2]);
}

int main(int argc, char **argv)
{
	u64 count, turn;
	int i;

	turns = 10;
	parse_turns(argc, argv);
	dev_kvm = open_kvm_dev_path_or_exit();
	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		/* With many vCPUs a few turns are enough. */
		count = numbers[i] < 100 ? turns : max(turns / 5, 1ul);
		for (turn = 0; turn < count; turn++)
			one_life(numbers[i], turn);
		print("create", numbers[i], creations, count);
		print("destroy", numbers[i], destructions, count);
	}
	return 0;
}
