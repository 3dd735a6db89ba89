/* `ax` on PATH: `ax run` from the command line to exec, and the door to Python for all the rest.
 * Reading order: main.c, options.c, namespace.c, inherited.c, hello.c, link.c, filter.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

enum { EX_USAGE = 64, EX_DATAERR, EX_UNAVAILABLE = 69, EX_SOFTWARE, EX_OSERR, EX_NOPERM = 77 };

#define RESOLV "/etc/resolv.conf"

/* As given: the daemon is who reads and checks values.  Texts that were not given are "". */
struct options {
	const char *ip, *name, *labels, *expose, *user, *interface, *namespace, *service_account;
	const char *connect_wait, *run_dir;
	bool new_netns, dns_override;
	char **command;
};

/* Where the app will run, of what the caller may make. */
struct place {
	bool found;  /* the network namespace is the caller's, or we have no rights over it */
	bool lonely; /* … and nothing but loopback is up in it */
	bool mounts; /* the mount namespace is the app's own */
	char resolv[4096]; /* what can be shown there as /etc/resolv.conf */
};

/* What the daemon made of the app.  Texts that it did not send are "". */
struct reply {
	const char *ip, *resolv, *uid, *gid; /* `resolv`: the daemon's name for what is shown */
	const char *inject;                  /* "1": the sockets of the app will be the node's */
};

/* Prints `ax run: MESSAGE` and exits with `code`, one of sysexits.h as in errors.py. */
_Noreturn void fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool is_run_flag(const char *argument);
void parse_options(struct options *options, char **arguments);
void write_flags(FILE *json, const struct options *options);

const char *write_string(FILE *json, const char *text, char stop, const char *flag);
int say_hello(const struct options *options, const struct place *place, struct reply *reply);
void hand_over(int daemon, int notify);

bool in_user_namespace(void);
void enter_namespaces(const struct options *options, struct place *place);
void show_resolv(const char *file);
void become(uid_t uid, gid_t gid);

void write_inherited(FILE *json);
void write_nameservers(FILE *json);
void write_user(FILE *json, const char *name);

bool only_loopback_is_up(void);
bool set_up_loopback(void);
void set_up_network(const char *ip, const char *interface, bool found);

int install_filter(void);
