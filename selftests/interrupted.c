// SPDX-License-Identifier: GPL-2.0
/*
 * Reads a file while signals come, without end: what is read is to be whole all the
 * same, and a reading that takes long is to be left for them.
 *
 * Usage: interrupted FILE
 * Writes what it has read to standard output, and how often a reading returned for a
 * signal with nothing, to standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* Time between two signals, in microseconds: less than a reading takes. */
#define INTERVAL	200
/* Nothing that makes progress is interrupted as often as this. */
#define TOO_OFTEN	1000000

static void ignore(int signal)
{
	(void)signal;
}

int main(int argc, char **argv)
{
	/* Not SA_RESTART: the reading returns, and says why. */
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
