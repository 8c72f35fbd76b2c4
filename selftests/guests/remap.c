// SPDX-License-Identifier: GPL-2.0
/*
 * This guest depends on TLB invalidation.
 *
 * Each vCPU edits its own page tables to map a set of pages to other frames of a set,
 * invalidates the pages as an operating system does (INVLPG, reload of CR3, toggling
 * CR4.PGE), and reads through the new mappings.  At the same time the host drops a page
 * of the guest's memory now and then, so that the VM's own tables change too.  With
 * shadow paging a missing invalidation shows at once; with EPT it shows on a CPU that
 * caches translations.
 *
 * Usage: remap [-s SECONDS] [-v VCPUS] [-r ROUNDS] [-m] [-k]
 *   -r   rounds between two exits to user space (64)
 *   -m   at each exit to user space, move to the next CPU that is online
 *   -k   keep the memory: the host drops no page
 * SIGTERM ends the program early, with the usual checks.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define NPAGES		8
#define MAX_VCPUS	4
/*
 * Turns of an empty loop between two rounds.  Without the loop the guest would do
 * nothing but flush, which is slow in an emulator.
 */
#define IDLE_TURNS	50000

struct area {
	u64 dropped;		/* the page that the host drops now and then */
	u64 page[NPAGES];	/* guest-virtual addresses of the pages */
	u64 entry[NPAGES];	/* addresses where the guest edits their entries */
	u64 frame[NPAGES];	/* page-table entries that map each frame */
};

static u64 rounds_per_sync = 64;
static bool migrate;
static bool keep;
static atomic_ulong rounds, moves;
static atomic_bool stop;
static atomic_bool ended;

static void end(int signal)
{
	atomic_store(&ended, true);
}

static void invalidate_all(u64 round)
{
	if (round & 1) {
		set_cr3(get_cr3());
	} else {
		/* This drops global translations, too. */
		set_cr4(get_cr4() ^ X86_CR4_PGE);
		set_cr4(get_cr4() ^ X86_CR4_PGE);
	}
}

static void guest_code(struct area *area)
{
	u32 eax, ebx, ecx, edx;
	u64 round, i;

	for (round = 0;; round++) {
		bool one_by_one = round % 4 != 3;

		for (i = 0; i < NPAGES; i++) {
			u64 frame = (i + round) % NPAGES;

			WRITE_ONCE(*(u64 *)area->entry[i], area->frame[frame]);
			if (one_by_one)
				asm volatile("invlpg (%0)" : : "r"(area->page[i]) : "memory");
		}
		if (!one_by_one)
			invalidate_all(round / 4);

		for (i = 0; i < NPAGES; i++) {
			u64 frame = (i + round) % NPAGES;
			u64 *word = (u64 *)area->page[i];

			GUEST_ASSERT_EQ(READ_ONCE(word[0]), frame + 1);
			WRITE_ONCE(word[0], frame + 1);
		}
		/*
		 * Exit to KVM, but not to user space: Bochs sometimes does not exit
		 * for an interrupt while a guest runs with interrupts off.
		 */
		for (i = 0; i < IDLE_TURNS; i++) {
			asm volatile("" : "+r"(i));
			if (i % 5000 == 0)
				cpuid(0, &eax, &ebx, &ecx, &edx);
		}

		/* Map the page again, so that KVM has an entry to zap and flush. */
		READ_ONCE(*(u64 *)area->dropped);
		if ((round + 1) % rounds_per_sync == 0)
			GUEST_SYNC(rounds_per_sync);
	}
}

static void setup_area(struct kvm_vm *vm, struct kvm_vcpu *vcpu, gva_t dropped)
{
	gva_t area_gva = vm_alloc_page(vm);
	gva_t pages = vm_alloc_pages(vm, NPAGES);
	gva_t window = vm_unused_gva_gap(vm, NPAGES * PAGE_SIZE, KVM_UTIL_MIN_VADDR);
	struct area *area = addr_gva2hva(vm, area_gva);
	int i;

	for (i = 0; i < NPAGES; i++) {
		u64 *pte = vm_get_pte(vm, pages + i * PAGE_SIZE);
		gpa_t gpa = addr_hva2gpa(vm, pte);

		virt_pg_map(vm, window + i * PAGE_SIZE, gpa & PAGE_MASK);
		area->page[i] = pages + i * PAGE_SIZE;
		area->entry[i] = window + i * PAGE_SIZE + (gpa & ~PAGE_MASK);
		area->frame[i] = *pte;
		*(u64 *)addr_gva2hva(vm, pages + i * PAGE_SIZE) = i + 1;
	}
	area->dropped = dropped;
	vcpu_args_set(vcpu, 1, area_gva);
}

/* Move to the next CPU that is online. */
static void move(int *cpu)
{
	cpu_set_t set;
	int tries;

	for (tries = 0; tries < CPU_SETSIZE; tries++) {
		*cpu = (*cpu + 1) % sysconf(_SC_NPROCESSORS_CONF);
		CPU_ZERO(&set);
		CPU_SET(*cpu, &set);
		if (!sched_setaffinity(0, sizeof(set), &set)) {
			atomic_fetch_add(&moves, 1);
			return;
		}
	}
	TEST_FAIL("no CPU is online");
}

static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *vcpu = arg;
	struct ucall uc;
	int cpu = 0;

	while (!atomic_load(&stop)) {
		if (migrate)
			move(&cpu);
		/* Livepatch may interrupt KVM_RUN by a fake signal. */
		if (__vcpu_run(vcpu) && errno == EINTR)
			continue;
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_SYNC:
			atomic_fetch_add(&rounds, uc.args[1]);
			break;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
			break;
		default:
			TEST_FAIL("Unexpected ucall %lu", uc.cmd);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	pthread_t threads[MAX_VCPUS];
	int seconds = 2, nr = 1, i, option;
	gva_t dropped_gva;
	struct kvm_vm *vm;
	u64 *dropped;

	while ((option = getopt(argc, argv, "s:v:r:mk")) != -1) {
		switch (option) {
		case 's':
			seconds = atoi_positive("seconds", optarg);
			break;
		case 'v':
			nr = atoi_positive("vCPUs", optarg);
			break;
		case 'r':
			rounds_per_sync = atoi_positive("rounds", optarg);
			break;
		case 'm':
			migrate = true;
			break;
		case 'k':
			keep = true;
			break;
		default:
			fprintf(stderr, "usage: %s [-s SECONDS] [-v VCPUS] [-r ROUNDS] [-m] [-k]\n",
				argv[0]);
			return 1;
		}
	}
	TEST_ASSERT(nr <= MAX_VCPUS, "at most %d vCPUs", MAX_VCPUS);

	vm = vm_create_with_vcpus(nr, guest_code, vcpus);
	sync_global_to_guest(vm, rounds_per_sync);
	dropped_gva = vm_alloc_page(vm);
	dropped = addr_gva2hva(vm, dropped_gva);
	for (i = 0; i < nr; i++)
		setup_area(vm, vcpus[i], dropped_gva);

	for (i = 0; i < nr; i++)
		kvm_pthread_create(&threads[i], NULL, vcpu_thread, vcpus[i]);

	signal(SIGTERM, end);
	for (i = 0; i < seconds * 10 && !atomic_load(&ended); i++) {
		usleep(100000);
		if (keep)
			continue;
		WRITE_ONCE(*dropped, i);
		madvise(dropped, PAGE_SIZE, MADV_DONTNEED);
	}

	atomic_store(&stop, true);
	for (i = 0; i < nr; i++)
		kvm_pthread_join(threads[i], NULL);
	kvm_vm_free(vm);

	TEST_ASSERT(atomic_load(&rounds), "no vCPU made any progress");
	printf("%lu rounds, every page read as written\n", atomic_load(&rounds));
	if (migrate)
		printf("%lu moves\n", atomic_load(&moves));
	return 0;
}
