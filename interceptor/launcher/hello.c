/* The talk with the daemon, over a SOCK_SEQPACKET socket (one packet is one message):
 *   hello (JSON)  →  "ok\nid=…\nip=…\nresolv=…\nuid=…\ngid=…\n" or "error\ncode=…\nmessage=…\n"
 *   "filter" + the notify descriptor  →  "go\n"; "nested" where the app around us has the filter */
#include "ax.h"
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_HELLO 65536
#define DEADLINE 30 /* seconds for each answer: a class is compiled meanwhile */

static char hello[MAX_HELLO];
static size_t used; /* may grow past MAX_HELLO: then the text is incomplete */

static void put(const char *text, size_t length)
{
	if (used + length <= MAX_HELLO)
		memcpy(hello + used, text, length);
	used += length;
}

/* Bytes of the UTF-8 character at `p` (RFC 3629: no overlong forms, no surrogates), 0 if none. */
static int utf8_length(const unsigned char *p)
{
	static const struct { unsigned char first, last, low, high; int length; } forms[] = {
		{ 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
		{ 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
		if (*p < forms[i].first || *p > forms[i].last)
			continue;
		if (forms[i].length > 1 && (p[1] < forms[i].low || p[1] > forms[i].high))
			return 0;
		for (int j = 2; j < forms[i].length; j++)
			if ((p[j] & 0xc0) != 0x80)
				return 0;
		return forms[i].length;
	}
	return 0;
}

/* A JSON string of `length` bytes.  `flag` is whose value it is; NULL for texts that are only
 * shown (command, directory), where bytes that are not UTF-8 become U+FFFD. */
static void put_string(const char *text, size_t length, const char *flag)
{
	put("\"", 1);
	for (const char *end = text + length; text < end;) {
		int size = utf8_length((const unsigned char *)text);
		char escape[8];
		if (!size && flag)
			fail(EX_DATAERR, "--%s: not UTF-8", flag);
		if (!size)
			put("\\ufffd", 6);
		else if ((unsigned char)*text < ' ' || *text == '"' || *text == '\\' || *text == 0x7f)
			put(escape, sprintf(escape, "\\u%04x", *text));
		else
			put(text, size);
		text += size ? size : 1;
	}
	put("\"", 1);
}

static void put_key(const char *key)
{
	put(used > 1 ? ",\"" : "\"", used > 1 ? 2 : 1);
	put(key, strlen(key));
	put("\":", 2);
}

static void put_flag(const char *key, const char *flag, const char *value)
{
	put_key(key);
	put_string(value, strlen(value), flag);
}

static void put_switch(const char *key, bool value)
{
	put_key(key);
	put(value ? "true" : "false", value ? 4 : 5);
}

static void compose(const struct options *options)
{
	char directory[4096];
	put("{", 1);
	put_key("version");
	put("1", 1);
	put_flag("ip", "ip", options->ip);
	put_flag("name", "name", options->name);
	put_flag("labels", "labels", options->labels);
	put_flag("user", "user", options->user);
	put_flag("interface", "interface", options->interface);
	put_flag("namespace", "namespace", options->namespace);
	put_flag("service_account", "service-account", options->service_account);
	put_switch("new_netns", options->new_netns);
	put_switch("dns_override", options->dns_override);
	put_key("expose");
	put("[", 1);
	for (const char *const *list = options->expose, *sep = ""; *list; list++)
		for (const char *item = *list; item; sep = ",") {
			size_t length = strcspn(item, ",");
			put(sep, strlen(sep));
			put_string(item, length, "expose");
			item = item[length] ? item + length + 1 : NULL;
		}
	put("]", 1);
	put_flag("cwd", NULL, getcwd(directory, sizeof(directory)) ? directory : "");
	put_key("command");
	put("[", 1);
	if (used > MAX_HELLO / 2)
		fail(EX_USAGE, "the flags are too long: together %d bytes at most", MAX_HELLO / 2);
	for (char **word = options->command; *word; word++) {
		size_t before = used;
		put(",", word == options->command ? 0 : 1);
		put_string(*word, strlen(*word), NULL);
		if (used + 2 > MAX_HELLO) { /* only shown: a longer command is shown shortened, and runs */
			used = before;
			break;
		}
	}
	put("]}", 2);
}

static void receive(int daemon, char *text, size_t size, const char *run_dir)
{
	ssize_t length;
	do
		length = recv(daemon, text, size - 1, 0);
	while (length < 0 && errno == EINTR);
	if (length < 0 && errno == EAGAIN)
		fail(EX_UNAVAILABLE, "the daemon at %s did not answer within %d s", run_dir, DEADLINE);
	if (length <= 0)
		fail(EX_UNAVAILABLE, "the daemon at %s went away during the launch", run_dir);
	text[length] = '\0';
}

/* Cuts `text` into lines and lets `reply` point into it; an error ends the launch. */
static void read_reply(struct reply *reply, const char *run_dir)
{
	char *rest, *status = strtok_r(reply->text, "\n", &rest), *line;
	int code = EX_SOFTWARE;
	const char *message = "the daemon gave no reason";
	reply->ip = reply->resolv = "";
	while ((line = strtok_r(NULL, "\n", &rest))) {
		char *value = strchr(line, '=');
		if (!value)
			continue;
		*value++ = '\0';
		if (!strcmp(line, "ip"))
			reply->ip = value;
		else if (!strcmp(line, "resolv"))
			reply->resolv = value;
		else if (!strcmp(line, "uid"))
			reply->uid = strtoul(value, NULL, 10), reply->changes_user = true;
		else if (!strcmp(line, "gid"))
			reply->gid = strtoul(value, NULL, 10);
		else if (!strcmp(line, "code") && atoi(value) > 0)
			code = atoi(value);
		else if (!strcmp(line, "message"))
			message = value;
	}
	if (status && !strcmp(status, "error"))
		fail(code, "%s", message);
	if (!status || strcmp(status, "ok"))
		fail(EX_UNAVAILABLE, "what answers at %s is not the daemon of this release", run_dir);
}

int say_hello(const struct options *options, struct reply *reply)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval deadline = { .tv_sec = DEADLINE };
	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s/daemon.sock", options->run_dir) >=
	    sizeof(address.sun_path))
		fail(EX_USAGE, "--run-dir: too long for the path of a socket: %s", options->run_dir);
	compose(options);
	int daemon = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	setsockopt(daemon, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
	setsockopt(daemon, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof(deadline));
	if (connect(daemon, (struct sockaddr *)&address, sizeof(address)))
		fail(EX_UNAVAILABLE, "no daemon at %s (start one with: ax daemon)", address.sun_path);
	if (send(daemon, hello, used, MSG_NOSIGNAL) < 0)
		fail(EX_UNAVAILABLE, "the daemon at %s does not listen: %s", options->run_dir, strerror(errno));
	receive(daemon, reply->text, sizeof(reply->text), options->run_dir);
	read_reply(reply, options->run_dir);
	return daemon;
}

void hand_over(int daemon, int notify, const char *run_dir)
{
	union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control = {
		.header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS },
	};
	struct iovec text = { notify < 0 ? "nested" : "filter", 6 };
	struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1 };
	char answer[16];
	if (notify >= 0) {
		memcpy(CMSG_DATA(&control.header), &notify, sizeof(notify));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
	}
	if (sendmsg(daemon, &message, MSG_NOSIGNAL) < 0)
		fail(EX_UNAVAILABLE, "the daemon at %s went away during the launch", run_dir);
	receive(daemon, answer, sizeof(answer), run_dir);
	if (strcmp(answer, "go\n"))
		fail(EX_UNAVAILABLE, "the daemon at %s did not take the app", run_dir);
}
