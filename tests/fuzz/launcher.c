/* Fuzzer of what the launcher parses: the daemon's reply, the command line, texts that become JSON.
 * Usage: launcher COUNT SEED; the sanitizers end it at the first fault.  Built by launcher.py.
 * The files under test are included, so that what is static in them is reached; fail() and exit() come back here. */
#include <setjmp.h>
#include <stdlib.h>
static jmp_buf back;
static _Noreturn void come_back(int code) { (void)code; longjmp(back, 1); }
#define exit come_back
#include "options.c"
#include "hello.c"
#undef exit

_Noreturn void fail(int code, const char *format, ...)
{
	char text[65536];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	come_back(code);
}

void write_inherited(FILE *json) { (void)json; }
void write_nameservers(FILE *json) { (void)json; }
void write_user(FILE *json, const char *name) { (void)json, (void)name; }

static unsigned long long state;
static unsigned below(unsigned limit) /* xorshift64 */
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17;
	return (unsigned)(state >> 33) % limit;
}

static const char *const words[] = {
	"ok", "error", "go", "\n", "\n\n", "ip=", "ip=1.1.1.1", "resolv=/run/r", "uid=", "uid=1000", "gid=", "inject=1",
	"code=", "code=64", "code=-1", "code=99999999999999999999", "message=", "message=why %s %n", "id=1", "=", "",
	"--ip", "--ip=", "--ip=1.1.1.1", "--name", "--labels=a=b,c=d", "--expose", "--expose=80:80", "--expose=", "80:81,",
	"--new-netns", "--new-netns=false", "--new-netns=x", "--no-new-netns", "--no-new-netns=0", "--dns-override=1",
	"--run-dir", "--run-dir=", "--interface", "--interface=eth0", "--connect-wait=1s", "--user", "--namespace=a",
	"--service-account", "--", "-", "-h", "--help", "--i", "--ip1", "true", "nginx", "\xc3\xa9", "\xff", "\xc3", "\xed\xa0\x80",
	"\xf4\x90\x80\x80", "\xf0\x80\x80\x80", "\"", "\\", "\x7f", "\x01", ",", ",,", "%s%n",
};

/* A text of some words, some bytes changed; never longer than `size` with its end. */
static char *text(char *into, size_t size, int most)
{
	size_t used = 0;
	for (int left = below(most) + 1; left; left--) {
		const char *word = words[below(sizeof(words) / sizeof(*words))];
		for (int times = below(40) ? 1 : below(200); times; times--)
			if (used + strlen(word) < size)
				memcpy(into + used, word, strlen(word)), used += strlen(word);
	}
	while (used && !below(3))
		into[below(used)] = below(255) + 1;
	into[used] = '\0';
	return into;
}

static void one_reply(void)
{
	char *packet = malloc(4096), *exact;
	struct reply reply;
	volatile size_t total = 0;
	text(packet, 4096, 12);
	exact = strdup(packet); /* no byte too many: the sanitizer sees the first one read behind it */
	free(packet);
	if (!setjmp(back)) {
		read_reply(exact, &reply);
		total = strlen(reply.ip) + strlen(reply.resolv) + strlen(reply.uid) + strlen(reply.gid) + strlen(reply.inject);
	}
	(void)total;
	free(exact);
}

static void one_command_line(void)
{
	char *arguments[12], buffer[2048];
	int count = below(11);
	struct options options = { 0 };
	struct place place = { 0 };
	size_t length = 0;
	char *volatile hello = NULL;
	for (int i = 0; i < count; i++)
		arguments[i] = strdup(text(buffer, sizeof(buffer), 2));
	arguments[count] = NULL;
	is_run_flag(count ? arguments[0] : "");
	if (!setjmp(back)) {
		parse_options(&options, arguments);
		hello = compose(&options, &place, &length);
		if (length > MAX_HELLO || strlen(hello) != length || hello[length - 1] != '}')
			abort();
	}
	free(hello);
	for (int i = 0; i < count; i++)
		free(arguments[i]);
}

int main(int count, char **arguments)
{
	if (count != 3 || !freopen("/dev/null", "w", stdout))
		return 2;
	state = strtoull(arguments[2], NULL, 10) * 2654435761u + 88172645463325252u;
	for (long left = atol(arguments[1]); left > 0; left--)
		below(2) ? one_reply() : one_command_line();
	return 0;
}
