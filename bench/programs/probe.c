/*
 * What the benchmarks time, without an interpreter in between.
 *
 *   probe server ADDRESS PORT          accepts and closes, for ever
 *   probe client ADDRESS PORT COUNT    socket + connect + close, COUNT times: prints nanoseconds per turn
 *   probe sockets COUNT                socket + close, COUNT times: prints nanoseconds per turn
 *   probe launch COUNT PROGRAM ARG...  fork + exec + wait, COUNT times: prints the median in nanoseconds
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int server(const struct sockaddr_in *address)
{
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (const void *)address, sizeof(*address)) || listen(listener, 4096))
		return fail("bind or listen");
	for (;;) {
		int connection = accept(listener, NULL, NULL);

		if (connection < 0)
			return fail("accept");
		close(connection);
	}
}

static int client(const struct sockaddr_in *address, int count)
{
	const int warm_up = count / 10;
	long begin = 0;

	for (int i = -warm_up; i < count; i++) {
		int fd;

		if (i == 0)
			begin = now();
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, (const void *)address, sizeof(*address)))
			return fail("socket or connect");
		close(fd);
	}
	printf("%ld\n", (now() - begin) / count);
	return 0;
}

static int sockets(int count)
{
	const int warm_up = count / 10;
	long begin = 0;

	for (int i = -warm_up; i < count; i++) {
		int fd;

		if (i == 0)
			begin = now();
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0)
			return fail("socket");
		close(fd);
	}
	printf("%ld\n", (now() - begin) / count);
	return 0;
}

static int compare(const void *a, const void *b)
{
	const long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static int launch(int count, char **argv)
{
	long *times = calloc(count, sizeof(long));

	for (int i = 0; i < count; i++) {
		int status;
		long begin = now();
		pid_t pid = vfork();

		if (pid == 0) {
			execvp(argv[0], argv);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) < 0 || status)
			return fail("launch");
		times[i] = now() - begin;
	}
	qsort(times, count, sizeof(long), compare);
	printf("%ld\n", times[count / 2]);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (argc > 2 && !strcmp(argv[1], "sockets"))
		return sockets(atoi(argv[2]));
	if (argc > 3 && !strcmp(argv[1], "launch"))
		return launch(atoi(argv[2]), argv + 3);
	if (argc < 4 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fprintf(stderr, "see the head of probe.c\n");
		return 64;
	}
	address.sin_port = htons(atoi(argv[3]));
	if (!strcmp(argv[1], "server"))
		return server(&address);
	return client(&address, argc > 4 ? atoi(argv[4]) : 4000);
}
