// SPDX-License-Identifier: GPL-2.0
/*
 * This program moves a vCPU between two CPUs, beside another VM that runs on both CPUs.
 *
 * The moving vCPU exits to user space at once, and enters the guest on the other CPU.
 * The vCPUs of the other VM stay, one on each CPU, and exit for CPUID without end.  They
 * need no flush, so every flush comes from a move.
 *
 * Usage: moves [-n MOVES]
 * The program prints "ready" and waits for a line, so that a script can read counters
 * before the moves.  Then it prints "moves NUMBER", and waits for another line.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "measure.h"

#define CPUS	2

static atomic_bool stop;
static atomic_int running;

static void restless(void)
{
	for (;;)
		GUEST_SYNC(0);
}

static void busy(void)
{
	int i;

	for (;;) {
		for (i = 0; i < 100; i++)
			do_cpuid();
		GUEST_SYNC(0);
	}
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(set), &set), "cannot run on CPU %d", cpu);
}

/* Livepatch may interrupt KVM_RUN by a fake signal. */
static void run_once(struct kvm_vcpu *vcpu)
{
	while (__vcpu_run(vcpu))
		TEST_ASSERT(errno == EINTR, "KVM_RUN failed: %d", errno);
}

static void *stay(void *arg)
{
	struct kvm_vcpu *vcpu = arg;

	stay_on(vcpu->id);
	run_once(vcpu);
	/* The moving vCPU need not wait for the end of a time slice. */
	TEST_ASSERT(!setpriority(PRIO_PROCESS, 0, 19), "setpriority() failed: %d", errno);
	atomic_fetch_add(&running, 1);
	while (!atomic_load(&stop))
		run_once(vcpu);
	return NULL;
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu, *others[CPUS];
	struct kvm_vm *vm, *other_vm;
	int i, option, moves = 1000;
	pthread_t threads[CPUS];

	while ((option = getopt(argc, argv, "n:")) != -1) {
		if (option != 'n')
			return 2;
		moves = atoi_positive("moves", optarg);
	}

	other_vm = vm_create_with_vcpus(CPUS, busy, others);
	for (i = 0; i < CPUS; i++)
		kvm_pthread_create(&threads[i], NULL, stay, others[i]);
	vm = vm_create_with_one_vcpu(&vcpu, restless);
	stay_on(0);
	run_once(vcpu);
	while (atomic_load(&running) < CPUS)
		sched_yield();

	printf("ready\n");
	fflush(stdout);
	getchar();
	for (i = 1; i <= moves; i++) {
		stay_on(i % CPUS);
		run_once(vcpu);
	}
	printf("moves %d\n", moves);
	fflush(stdout);
	getchar();

	atomic_store(&stop, true);
	for (i = 0; i < CPUS; i++)
		kvm_pthread_join(threads[i], NULL);
	kvm_vm_free(vm);
	kvm_vm_free(other_vm);
	return 0;
}
