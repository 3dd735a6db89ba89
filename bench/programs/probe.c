/*
 * What the benchmarks time, without an interpreter in between.
 *
 *   probe server ADDRESS PORT          accepts and closes, for ever
 *   probe client ADDRESS PORT COUNT    socket + connect + close, COUNT times: prints nanoseconds per turn
 *   probe sockets COUNT                socket + close, COUNT times: prints nanoseconds per turn
 *   probe udp-server ADDRESS PORT      echoes datagrams, for ever
 *   probe udp ADDRESS PORT COUNT       datagram there and back from one unconnected socket: nanoseconds per turn
 *   probe udp-connected ADDRESS PORT COUNT          the same from a connected one
 *   probe busy ADDRESS PORT RATE       connects and closes RATE times a second, for ever
 *   probe tail ADDRESS PORT COUNT RATE connects COUNT times at that rate: prints the median and the 99th
 *                                      percentile of connect() alone, in nanoseconds
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

static int udp_server(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	char data[64];

	if (bind(fd, (const void *)address, sizeof(*address)))
		return fail("bind");
	for (;;) {
		struct sockaddr_in peer;
		socklen_t length = sizeof(peer);
		ssize_t size = recvfrom(fd, data, sizeof(data), 0, (void *)&peer, &length);

		if (size < 0 || sendto(fd, data, size, 0, (void *)&peer, length) < 0)
			return fail("recvfrom or sendto");
	}
}

static int udp(const struct sockaddr_in *address, int count, int connected)
{
	const int warm_up = count / 10;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct timeval patience = { .tv_sec = 5 };
	char data[64] = "";
	long begin = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connected && connect(fd, (const void *)address, sizeof(*address)))
		return fail("connect");
	for (int i = -warm_up; i < count; i++) {
		struct sockaddr_in peer;
		socklen_t length = sizeof(peer);

		if (i == 0)
			begin = now();
		if (connected) {
			if (send(fd, data, sizeof(data), 0) < 0 || recv(fd, data, sizeof(data), 0) < 0)
				return fail("send or recv");
			continue;
		}
		if (sendto(fd, data, sizeof(data), 0, (const void *)address, sizeof(*address)) < 0 ||
		    recvfrom(fd, data, sizeof(data), 0, (void *)&peer, &length) < 0)
			return fail("sendto or recvfrom");
		if (peer.sin_addr.s_addr != address->sin_addr.s_addr || peer.sin_port != address->sin_port)
			return fail("somebody else answered");
	}
	printf("%ld\n", (now() - begin) / count);
	return 0;
}

/* Sleeps until `next`; a turn that comes too late is not made up for. */
static long pace(long next, long interval)
{
	struct timespec at = { .tv_sec = next / 1000000000L, .tv_nsec = next % 1000000000L };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
	return next + interval < now() ? now() + interval : next + interval;
}

/* One connect(), timed. */
static long once(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	long begin = now(), spent;

	if (fd < 0 || connect(fd, (const void *)address, sizeof(*address)))
		exit(fail("socket or connect"));
	spent = now() - begin;
	close(fd);
	return spent;
}

static int busy(const struct sockaddr_in *address, int rate)
{
	long interval = 1000000000L / rate, next = now() + getpid() * 7919L % interval;

	for (;;) {
		next = pace(next, interval);
		once(address);
	}
}

static int compare(const void *a, const void *b)
{
	const long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static int tail(const struct sockaddr_in *address, int count, int rate)
{
	long *times = calloc(count, sizeof(long)), interval = 1000000000L / rate, next = now();

	for (int i = 0; i < count; i++) {
		next = pace(next, interval);
		times[i] = once(address);
	}
	qsort(times, count, sizeof(long), compare);
	printf("%ld %ld\n", times[count / 2], times[count * 99L / 100]);
	return 0;
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
	if (!strcmp(argv[1], "udp-server"))
		return udp_server(&address);
	if (!strcmp(argv[1], "udp") || !strcmp(argv[1], "udp-connected"))
		return udp(&address, argc > 4 ? atoi(argv[4]) : 4000, argv[1][3] == '-');
	if (!strcmp(argv[1], "busy") && argc > 4)
		return busy(&address, atoi(argv[4]));
	if (!strcmp(argv[1], "tail") && argc > 5)
		return tail(&address, atoi(argv[4]), atoi(argv[5]));
	return client(&address, argc > 4 ? atoi(argv[4]) : 4000);
}
