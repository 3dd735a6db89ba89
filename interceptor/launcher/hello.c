/* The talk with the daemon, over a SOCK_SEQPACKET socket (one packet is one message):
 *   hello (JSON) + a socket that we made  →  "ok\nid=…\nip=…\nresolv=…\ninject=1\nuid=…\ngid=…\n" or
 *                                            "error\ncode=…\nmessage=…\n"
 *   "filter" + the notify descriptor  →  "go\n"; "nested" where the app around us has the filter */
#include "ax.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_HELLO 65536
#define DEADLINE 30 /* seconds for each answer: a class is compiled meanwhile */

static struct sockaddr_un address = { .sun_family = AF_UNIX };

/* Bytes of the UTF-8 character at `p` (RFC 3629: no overlong forms, no surrogates), 0 if none. */
static int utf8_length(const unsigned char *p)
{
	int length = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;
	for (int i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return length;
}

/* Writes a JSON string, up to `stop` or the end, and returns where it stopped.  `flag` is whose value
 * it is; NULL for texts that are only shown (command, directory): what is not UTF-8 becomes U+FFFD. */
const char *write_string(FILE *json, const char *text, char stop, const char *flag)
{
	fputc('"', json);
	while (*text && *text != stop) {
		int size = utf8_length((const unsigned char *)text);
		if (!size && flag)
			fail(EX_DATAERR, "--%s: not UTF-8", flag);
		if (!size)
			fputs("\\ufffd", json);
		else if ((unsigned char)*text < ' ' || strchr("\"\\\x7f", *text))
			fprintf(json, "\\u%04x", *text);
		else
			fwrite(text, size, 1, json);
		text += size ? size : 1;
	}
	fputc('"', json);
	return text;
}

/* Sets `length`.  A long command is shortened: it is only shown, what runs is complete. */
static char *compose(const struct options *options, const struct place *place, size_t *length)
{
	char *hello, *directory = getcwd(NULL, 0);
	FILE *json = open_memstream(&hello, length);
	fputs("{\"version\":1", json);
	write_flags(json, options);
	write_inherited(json);
	fprintf(json, ",\"lonely\":%s", place->lonely ? "true" : "false");
	if (options->dns_override && !place->mounts)
		write_nameservers(json);
	if (place->lonely && *options->user)
		write_user(json, options->user);
	fputs(",\"cwd\":", json);
	write_string(json, directory ? directory : "", 0, NULL);
	fputs(",\"command\":[", json);
	if (fflush(json) || *length > MAX_HELLO / 2)
		fail(EX_USAGE, "the flags are too long: %zu bytes, at most %d", *length, MAX_HELLO / 2);
	size_t fits = *length;
	for (char **word = options->command; *word; word++) {
		fputs(word == options->command ? "" : ",", json);
		write_string(json, *word, 0, NULL);
		if (fflush(json) || *length > MAX_HELLO - 2)
			break;
		fits = *length;
	}
	fclose(json);
	hello = realloc(hello, fits + 3);
	strcpy(hello + fits, "]}");
	*length = fits + 2;
	return hello;
}

/* One answer, in a buffer that the next one overwrites. */
static char *receive(int daemon, char *text, size_t size)
{
	ssize_t length;
	while ((length = recv(daemon, text, size - 1, 0)) < 0 && errno == EINTR)
		;
	if (length < 0 && errno == EAGAIN)
		fail(EX_UNAVAILABLE, "the daemon at %s did not answer within %d s", address.sun_path, DEADLINE);
	if (length <= 0)
		fail(EX_UNAVAILABLE, "the daemon at %s went away during the launch", address.sun_path);
	text[length] = '\0';
	return text;
}

/* Cuts `text` into lines and lets `reply` point into it; an error ends the launch. */
static void read_reply(char *text, struct reply *reply)
{
	const char *code = "", *message = "";
	struct { const char *key, **value; } lines[] = {
		{ "ip=", &reply->ip }, { "resolv=", &reply->resolv }, { "uid=", &reply->uid },
		{ "gid=", &reply->gid }, { "inject=", &reply->inject },
		{ "code=", &code }, { "message=", &message },
	};
	*reply = (struct reply){ "", "", "", "", "" };
	const char *status = strtok(text, "\n");
	for (const char *line; (line = strtok(NULL, "\n"));)
		for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
			if (!strncmp(line, lines[i].key, strlen(lines[i].key)))
				*lines[i].value = line + strlen(lines[i].key);
	if (status && !strcmp(status, "error"))
		fail(atoi(code) > 0 ? atoi(code) : EX_SOFTWARE, "%s", message);
	if (!status || strcmp(status, "ok"))
		fail(EX_UNAVAILABLE, "what answers at %s is no daemon of this release", address.sun_path);
}

/* One packet, with a descriptor unless that is -1.  A failure shows as the answer's. */
static void send_packet(int daemon, char *data, size_t length, int descriptor)
{
	union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control = {
		.header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS },
	};
	struct iovec text = { data, length };
	struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1 };
	if (descriptor >= 0) {
		memcpy(CMSG_DATA(&control.header), &descriptor, sizeof(descriptor));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
	}
	sendmsg(daemon, &message, MSG_NOSIGNAL);
}

/* Why nobody answers at `address`, and what to do about it. */
static _Noreturn void fail_to_connect(const struct options *options)
{
	const char *path = address.sun_path, *reason = strerror(errno);
	if (errno == EACCES || errno == EPERM)
		fail(EX_NOPERM, "%s: %s (its directory must let this user through)", path, reason);
	if (errno == ENOENT && access(options->run_dir, F_OK))
		fail(EX_UNAVAILABLE, "no daemon at %s: there is no %s (start one with: ax daemon; in a container, mount "
		     "that directory)", path, options->run_dir);
	if (errno == ENOENT)
		fail(EX_UNAVAILABLE, "no daemon at %s (start one with: ax daemon)", path);
	fail(EX_UNAVAILABLE, "no daemon at %s: %s (start one with: ax daemon; in a container, mount the directory, "
	     "not the socket)", path, reason);
}

int say_hello(const struct options *options, const struct place *place, struct reply *reply)
{
	static char answer[4096];
	struct timeval deadline = { .tv_sec = DEADLINE };
	size_t length, room = sizeof(address.sun_path);
	if ((size_t)snprintf(address.sun_path, room, "%s/daemon.sock", options->run_dir) >= room)
		fail(EX_USAGE, "--run-dir: too long for the path of a socket: %s", options->run_dir);
	char *hello = compose(options, place, &length);
	/* Whose it is tells the daemon whether the filter of an app around us traps our socket(). */
	int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int daemon = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	setsockopt(daemon, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
	setsockopt(daemon, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof(deadline));
	if (connect(daemon, (struct sockaddr *)&address, sizeof(address)))
		fail_to_connect(options);
	send_packet(daemon, hello, length, probe);
	close(probe);
	read_reply(receive(daemon, answer, sizeof(answer)), reply);
	return daemon;
}

void hand_over(int daemon, int notify)
{
	static char answer[4096];
	struct reply nothing;
	send_packet(daemon, notify < 0 ? "nested" : "filter", 6, notify);
	if (!strcmp(receive(daemon, answer, sizeof(answer)), "go\n"))
		return;
	read_reply(answer, &nothing); /* an error says why */
	fail(EX_UNAVAILABLE, "the daemon at %s did not take the app", address.sun_path);
}
