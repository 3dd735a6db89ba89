/* The flags of `ax run` (manual 4.2): one table for the parser, the help and the hello. */
#include "ax.h"
#include <stdlib.h>
#include <string.h>

#define DEFAULT_RUN_DIR "/var/run/appswitch"
#define FIELD(name) offsetof(struct options, name)

static const struct flag {
	const char *name, *value, *help;
	size_t field;
	enum { TEXT, LIST, SWITCH, OFF } kind;
} flags[] = {
	{ "ip", " ADDRESS", "IPv4 address that the app's services are reached at", FIELD(ip), TEXT },
	{ "name", " NAME", "DNS name of the app", FIELD(name), TEXT },
	{ "labels", " CSV", "labels key=value (default: zone=default)", FIELD(labels), TEXT },
	{ "expose", " CSV", "APP-PORT:[NODE-IP:]HOST-PORT, repeatable", FIELD(expose), LIST },
	{ "user", " NAME", "user name or UID that the program runs as", FIELD(user), TEXT },
	{ "interface", " NAME", "network interface to make in the namespace", FIELD(interface), TEXT },
	{ "new-netns", "[=false]", "a network namespace of its own (default: true)", FIELD(new_netns), SWITCH },
	{ "dns-override", "[=false]", "use the mesh's DNS (default: true)", FIELD(dns_override), SWITCH },
	{ "namespace", " NAME", "Istio namespace of the app", FIELD(namespace), TEXT },
	{ "service-account", " NAME", "Istio service account of the app", FIELD(service_account), TEXT },
	{ "connect-wait", " TIME", "connect() waits for a listener, eg 10s (default: the daemon's)", FIELD(connect_wait), TEXT },
	/* From here on: not told to the daemon. */
	{ "run-dir", " PATH", "directory of the daemon (AX_RUN_DIR, default: " DEFAULT_RUN_DIR ")", FIELD(run_dir), TEXT },
	{ "no-new-netns", "", "the same as --new-netns=false", FIELD(new_netns), OFF },
};
static const struct flag *const flags_end = flags + sizeof(flags) / sizeof(*flags);

/* The flag that `--NAME` or `--NAME=…` names, or NULL. */
static const struct flag *find(const char *argument)
{
	for (const struct flag *flag = flags; flag < flags_end && !strncmp(argument, "--", 2); flag++)
		if (strlen(flag->name) == strcspn(argument + 2, "=") &&
		    !strncmp(argument + 2, flag->name, strlen(flag->name)))
			return flag;
	return NULL;
}

bool is_run_flag(const char *argument)
{
	return find(argument) || !strcmp(argument, "--");
}

static _Noreturn void help(void)
{
	puts("usage: ax run [FLAGS] [--] COMMAND [ARGUMENTS]\n\nRuns COMMAND under AppSwitch.\n");
	for (const struct flag *flag = flags; flag < flags_end; flag++)
		printf("%*s%s\n", printf("  --%s%s", flag->name, flag->value) - 28, "", flag->help);
	exit(0);
}

static void set(struct options *options, const struct flag *flag, const char *value)
{
	void *field = (char *)options + flag->field;
	const char **text = field;
	if (flag->kind == SWITCH || flag->kind == OFF) {
		bool on = !strcmp(value, "true") || !strcmp(value, "1");
		if (!on && strcmp(value, "false") && strcmp(value, "0"))
			fail(EX_USAGE, "--%s=%s: neither true nor false", flag->name, value);
		*(bool *)field = on == (flag->kind == SWITCH);
	} else if (flag->kind == LIST && **text) {
		char *joined;
		*text = asprintf(&joined, "%s,%s", *text, value) < 0 ? "" : joined;
	} else {
		*text = value;
	}
}

void parse_options(struct options *options, char **next)
{
	for (const struct flag *flag = flags; flag < flags_end; flag++)
		if (flag->kind == TEXT || flag->kind == LIST)
			*(const char **)((char *)options + flag->field) = "";
	const char *run_dir = getenv("AX_RUN_DIR");
	options->run_dir = run_dir && *run_dir ? run_dir : DEFAULT_RUN_DIR;
	options->new_netns = options->dns_override = true;
	for (; *next && **next == '-' && strcmp(*next, "--"); next++) {
		const struct flag *flag = find(*next);
		const char *value = strchr(*next, '=');
		if (!strcmp(*next, "-h") || !strcmp(*next, "--help"))
			help();
		if (!flag)
			fail(EX_USAGE, "unknown flag %.*s (see: ax run -h)", (int)strcspn(*next, "="), *next);
		if (value)
			value++;
		else if (flag->kind == SWITCH || flag->kind == OFF)
			value = "true";
		else if (!(value = *++next))
			fail(EX_USAGE, "--%s: a value is missing", flag->name);
		set(options, flag, value);
	}
	options->command = *next && !strcmp(*next, "--") ? next + 1 : next;
	if (!*options->command)
		fail(EX_USAGE, "no command to run (see: ax run -h)");
	if (*options->interface && !options->new_netns)
		fail(EX_USAGE, "--interface needs a network namespace: not with --new-netns=false");
}

/* As `,"key":value`; the keys are the flags' names with _ for -. */
void write_flags(FILE *json, const struct options *options)
{
	for (const struct flag *flag = flags; strcmp(flag->name, "run-dir"); flag++) {
		const void *field = (const char *)options + flag->field;
		const char *text = flag->kind == SWITCH ? "" : *(const char *const *)field, *open = "[";
		fputs(",\"", json);
		for (const char *p = flag->name; *p; p++)
			fputc(*p == '-' ? '_' : *p, json);
		fputs("\":", json);
		if (flag->kind == SWITCH)
			fputs(*(const bool *)field ? "true" : "false", json);
		if (flag->kind == TEXT)
			write_string(json, text, 0, flag->name);
		for (; flag->kind == LIST && *text; text += *text == ',') {
			fputs(open, json);
			text = write_string(json, text, *(open = ","), flag->name);
		}
		if (flag->kind == LIST)
			fputs(*open == '[' ? "[]" : "]", json);
	}
}
