// SPDX-License-Identifier: GPL-2.0
/*
 * This program starts processes with threads that make the kernel switch between
 * address spaces and flush translations: each thread changes mappings, yields the CPU,
 * sleeps, and ends.
 *
 * In each round one thread replaces a page that all threads of the process check:
 * a thread that reads an older page is a failure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define PAGES		8
/* How often a thread yields the CPU after each change of a mapping. */
#define TURNS		4

static int processes = 20;
static int threads = 2;
static int rounds = 50;

/* The page that all threads of a process check, and the least number that it may have. */
static unsigned long *shared;
static unsigned long written;

static void die(const char *what)
{
	fprintf(stderr, "processes: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *map(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		die("mmap");
	return at;
}

/* Write-protect one of a few pages, and then all of them. */
static void change_pages(void)
{
	char *at = map(PAGES * PAGE);

	for (int i = 0; i < PAGES; i++)
		at[i * PAGE] = i + 1;
	if (mprotect(at, PAGE, PROT_READ) || mprotect(at, PAGES * PAGE, PROT_READ))
		die("mprotect");
	for (int i = 0; i < PAGES; i++) {
		if (at[i * PAGE] != i + 1) {
			fprintf(stderr, "processes: page %d has the value of another page\n", i);
			exit(1);
		}
	}
	/* A dropped page reads as zeroes. */
	if (madvise(at, PAGE, MADV_DONTNEED))
		die("madvise");
	if (at[0]) {
		fprintf(stderr, "processes: a dropped page still has its value\n");
		exit(1);
	}
	munmap(at, PAGES * PAGE);
}

/* Unmap a range so large that the kernel frees whole tables. */
static void change_tables(void)
{
	char *at = map(3 * HUGE);

	for (unsigned long i = 0; i < 3; i++)
		at[i * HUGE] = 1;
	munmap(at, 3 * HUGE);
}

/* Replace the shared page by another page, which has a greater number. */
static void replace_shared(void)
{
	unsigned long number = __atomic_load_n(&written, __ATOMIC_RELAXED) + 1;
	unsigned long *new = map(PAGE);

	*new = number;
	if (mremap(new, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, shared) == MAP_FAILED)
		die("mremap");
	__atomic_store_n(&written, number, __ATOMIC_RELEASE);
}

static void check_shared(void)
{
	unsigned long least = __atomic_load_n(&written, __ATOMIC_ACQUIRE);
	unsigned long found = __atomic_load_n(shared, __ATOMIC_RELAXED);

	if (found < least) {
		fprintf(stderr, "processes: read %lu after %lu was written\n", found, least);
		exit(1);
	}
}

static void *work(void *number)
{
	const struct timespec moment = { .tv_nsec = 200000 };
	int me = (intptr_t)number;

	for (int i = 0; i < rounds; i++) {
		if (!me)
			replace_shared();
		change_pages();
		for (int turn = 0; turn < TURNS; turn++) {
			sched_yield();
			check_shared();
		}
		if (i % 8 == me)
			change_tables();
		check_shared();
		/* An idle CPU becomes lazy. */
		if (i % 4 == 3)
			nanosleep(&moment, NULL);
		check_shared();
	}
	return NULL;
}

static void process(void)
{
	pthread_t all[threads];

	shared = map(PAGE);
	for (int i = 0; i < threads; i++) {
		errno = pthread_create(&all[i], NULL, work, (void *)(intptr_t)i);
		if (errno)
			die("pthread_create");
	}
	for (int i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	exit(0);
}

int main(int argc, char **argv)
{
	int option, status, result = 0;

	while ((option = getopt(argc, argv, "p:t:n:")) != -1) {
		switch (option) {
		case 'p':
			processes = atoi(optarg);
			break;
		case 't':
			threads = atoi(optarg);
			break;
		case 'n':
			rounds = atoi(optarg);
			break;
		default:
			fprintf(stderr,
				"usage: processes [-p PROCESSES] [-t THREADS] [-n ROUNDS]\n");
			return 2;
		}
	}
	if (processes < 1 || threads < 1 || rounds < 1) {
		fprintf(stderr, "processes: each number has to be 1 or more\n");
		return 2;
	}
	for (int i = 0; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid)
			process();
	}
	while (wait(&status) > 0)
		result |= status;
	return !!result;
}
