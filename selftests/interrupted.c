// SPDX-License-Identifier: GPL-2.0
/*
 * This program reads a file while signals arrive at a constant rate.  A read that takes
 * long has to return for a signal, and the reads together have to return the whole
 * file.
 *
 * Usage: interrupted FILE
 * The program writes the file to standard output, and the number of reads that a signal
 * ended without data to standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* Time between two signals, in microseconds: less than the time of a read. */
#define INTERVAL	200
/* Reads that make progress are interrupted less often. */
#define TOO_OFTEN	1000000

static void ignore(int signal)
{
	(void)signal;
}

int main(int argc, char **argv)
{
	/* Without SA_RESTART, read() returns EINTR. */
	struct sigaction action = { .sa_handler = ignore };
	struct itimerval timer = {
		.it_interval.tv_usec = INTERVAL,
		.it_value.tv_usec = INTERVAL,
	};
	unsigned long interrupted = 0;
	char buffer[4096];
	ssize_t got;
	int file;

	if (argc != 2) {
		fprintf(stderr, "usage: %s FILE\n", argv[0]);
		return 2;
	}
	file = open(argv[1], O_RDONLY);
	if (file < 0) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &timer, NULL)) {
		fprintf(stderr, "no timer: %s\n", strerror(errno));
		return 1;
	}

	for (;;) {
		got = read(file, buffer, sizeof(buffer));
		if (got < 0 && errno == EINTR) {
			if (++interrupted == TOO_OFTEN) {
				fprintf(stderr, "no progress\n");
				return 1;
			}
			continue;
		}
		if (got < 0) {
			fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
			return 1;
		}
		if (!got)
			break;
		fwrite(buffer, 1, got, stdout);
	}

	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "standard output: %s\n", strerror(errno));
		return 1;
	}
	fprintf(stderr, "%lu interrupted\n", interrupted);
	return 0;
}
