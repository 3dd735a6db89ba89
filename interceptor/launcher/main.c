/* The order of a launch.  Every descriptor of ours closes at exec, and the signal mask is left
 * alone: from exec on, exit status, signals and terminal are the program's own. */
#include "ax.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

_Noreturn void fail(int code, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("ax run: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	exit(code);
}

static _Noreturn void run(char **arguments)
{
	struct options options = { 0 };
	struct place place;
	struct reply reply;
	parse_options(&options, arguments);
	if (geteuid() || in_user_namespace()) /* the daemon insists: no setuid program in an ordinary user's mesh */
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	enter_namespaces(&options, &place);
	int daemon = say_hello(&options, &place, &reply);
	bool inject = options.new_netns || *reply.inject;
	if (options.new_netns)
		set_up_network(reply.ip, options.interface, place.found);
	if (place.mounts && *reply.resolv)
		show_resolv(place.resolv);
	int notify = inject ? install_filter() : -1;
	if (*reply.uid) /* after the filter: that may need the rights that go here */
		become(strtoul(reply.uid, NULL, 10), strtoul(reply.gid, NULL, 10));
	if (inject)
		hand_over(daemon, notify);
	execvp(options.command[0], options.command);
	fail(errno == ENOENT ? 127 : 126, "%s: %s", options.command[0], /* as a shell does */
	     errno == ENOENT && !strchr(options.command[0], '/') ? "command not found" : strerror(errno));
}

/* Every other sub-command is Python's, which an installation puts beside us (a link to us is
 * followed).  A container that this file is mounted into has none. */
static _Noreturn void run_python(int count, char **arguments)
{
	char self[4096] = "", python[4200], *command[count + 4];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[length < 0 ? 0 : length] = '\0';
	char *slash = strrchr(self, '/');
	snprintf(python, sizeof(python), "%.*s/python3", slash ? (int)(slash - self) : 0, self);
	if (!strcmp(self, "/usr/local/bin/ax") && access(python, X_OK))
		strcpy(python, "/usr/bin/python3"); /* whose pip installs to /usr/local on Debian */
	memcpy(command, (char *[]){ python, "-P", "-m", "appswitch" }, 4 * sizeof(*command));
	memcpy(command + 4, arguments + 1, count * sizeof(*command)); /* with the NULL */
	execv(python, command);
	fprintf(stderr, "ax: only 'ax run' works here: no Python beside %s\n", *self ? self : arguments[0]);
	exit(EX_UNAVAILABLE);
}

int main(int count, char **arguments)
{
	if (count > 1 && !strcmp(arguments[1], "run"))
		run(arguments + 2);
	if (count > 1 && is_run_flag(arguments[1])) /* the manual's `ax --labels role=test curl …` */
		run(arguments + 1);
	run_python(count, arguments);
}
