/* The flags of `ax run` (manual 4.2): one table, read by the parser and by the help. */
#include "ax.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { TEXT, LIST, SWITCH };

static const struct flag {
	const char *name;
	enum kind kind;
	size_t field;
	const char *value, *help;
} flags[] = {
#define FIELD(name) offsetof(struct options, name)
	{ "ip", TEXT, FIELD(ip), " ADDRESS", "IPv4 address that the app's services are reached at" },
	{ "name", TEXT, FIELD(name), " NAME", "DNS name of the app" },
	{ "labels", TEXT, FIELD(labels), " CSV", "labels key=value (default: zone=default)" },
	{ "expose", LIST, FIELD(expose), " CSV", "APP-PORT:[NODE-IP:]HOST-PORT, repeatable" },
	{ "user", TEXT, FIELD(user), " NAME", "user name or UID that the program runs as" },
	{ "interface", TEXT, FIELD(interface), " NAME", "network interface to make in the namespace" },
	{ "new-netns", SWITCH, FIELD(new_netns), "[=false]", "a network namespace of its own (default: true)" },
	{ "dns-override", SWITCH, FIELD(dns_override), "[=false]", "use the mesh's DNS (default: true)" },
	{ "namespace", TEXT, FIELD(namespace), " NAME", "Istio namespace of the app" },
	{ "service-account", TEXT, FIELD(service_account), " NAME", "Istio service account of the app" },
	{ "run-dir", TEXT, FIELD(run_dir), " PATH",
	  "directory of the daemon (AX_RUN_DIR, default: " DEFAULT_RUN_DIR ")" },
};
#define FLAGS (sizeof(flags) / sizeof(*flags))

/* The flag that `--NAME` or `--NAME=…` names, or NULL. */
static const struct flag *find(const char *argument)
{
	for (size_t i = 0; i < FLAGS && !strncmp(argument, "--", 2); i++)
		if (strlen(flags[i].name) == strcspn(argument + 2, "=") &&
		    !strncmp(argument + 2, flags[i].name, strlen(flags[i].name)))
			return &flags[i];
	return NULL;
}

bool is_run_flag(const char *argument)
{
	return find(argument) || !strcmp(argument, "--") || !strcmp(argument, "--no-new-netns");
}

static _Noreturn void help(void)
{
	puts("usage: ax run [FLAGS] [--] COMMAND [ARGUMENTS]\n\nRuns COMMAND under AppSwitch.\n");
	for (size_t i = 0; i < FLAGS; i++) {
		int width = 28 - printf("  --%s%s", flags[i].name, flags[i].value);
		printf("%*s%s\n", width > 0 ? width : 1, "", flags[i].help);
	}
	exit(0);
}

static bool truth(const struct flag *flag, const char *value)
{
	if (!value || !strcmp(value, "true") || !strcmp(value, "1"))
		return true;
	if (strcmp(value, "false") && strcmp(value, "0"))
		fail(EX_USAGE, "--%s=%s: neither true nor false", flag->name, value);
	return false;
}

static void set(struct options *options, const struct flag *flag, const char *value)
{
	void *field = (char *)options + flag->field;
	if (flag->kind == SWITCH) {
		*(bool *)field = truth(flag, value);
	} else if (flag->kind == TEXT) {
		*(const char **)field = value;
	} else {
		const char **list = field;
		size_t used = 0;
		while (list[used])
			used++;
		if (used == MAX_EXPOSES)
			fail(EX_USAGE, "--%s: more than %d times", flag->name, MAX_EXPOSES);
		list[used] = value;
	}
}

void parse_options(struct options *options, char **next)
{
	for (size_t i = 0; i < FLAGS; i++)
		if (flags[i].kind == TEXT)
			set(options, &flags[i], "");
	const char *run_dir = getenv("AX_RUN_DIR");
	options->run_dir = run_dir && *run_dir ? run_dir : DEFAULT_RUN_DIR;
	options->new_netns = options->dns_override = true;
	for (; *next && **next == '-' && strcmp(*next, "--"); next++) {
		const struct flag *flag = find(*next);
		char *value = strchr(*next, '=');
		if (!strcmp(*next, "-h") || !strcmp(*next, "--help"))
			help();
		if (!strcmp(*next, "--no-new-netns")) { /* the manual's other name (4.2.6) */
			options->new_netns = false;
			continue;
		}
		if (!flag)
			fail(EX_USAGE, "unknown flag %.*s (see: ax run -h)", (int)strcspn(*next, "="), *next);
		if (value)
			value++;
		else if (flag->kind != SWITCH && !(value = *++next))
			fail(EX_USAGE, "--%s: a value is missing", flag->name);
		set(options, flag, value);
	}
	options->command = *next && !strcmp(*next, "--") ? next + 1 : next;
	if (!*options->command)
		fail(EX_USAGE, "no command to run (see: ax run -h)");
	if (*options->interface && !options->new_netns)
		fail(EX_USAGE, "--interface needs a network namespace: not with --new-netns=false");
}
