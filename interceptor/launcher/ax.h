/* `ax` on PATH: `ax run` from the command line to exec, and the door to Python for all the rest.
 * Reading order: main.c, options.c, hello.c, namespace.c, filter.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define DEFAULT_RUN_DIR "/var/run/appswitch"
#define MAX_EXPOSES 64

enum { EX_USAGE = 64, EX_DATAERR, EX_UNAVAILABLE = 69, EX_SOFTWARE, EX_OSERR, EX_NOPERM = 77 };

/* As given: the daemon is who reads and checks values.  Texts that were not given are "". */
struct options {
	const char *ip, *name, *labels, *user, *interface, *namespace, *service_account, *run_dir;
	const char *expose[MAX_EXPOSES + 1]; /* ends with NULL */
	bool new_netns, dns_override;
	char **command;
};

/* What the daemon made of the app. */
struct reply {
	char text[4096];        /* what the pointers point into */
	const char *ip;         /* address for the namespace, or "" */
	const char *resolv;     /* file to show as /etc/resolv.conf, or "" */
	bool changes_user;
	uid_t uid;
	gid_t gid;
};

/* Prints `ax run: MESSAGE` and exits with `code`, one of sysexits.h as in errors.py. */
_Noreturn void fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool is_run_flag(const char *argument);
void parse_options(struct options *options, char **arguments);

int say_hello(const struct options *options, struct reply *reply);
void hand_over(int daemon, int notify, const char *run_dir);

void enter_network(const char *ip, const char *interface);
void show_resolv(const char *file, bool must);
void become(uid_t uid, gid_t gid);

int install_filter(void);
