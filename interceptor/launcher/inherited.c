/* What the launcher finds where it was started, and tells the daemon: sockets of its caller's, the
 * nameservers that programs here will ask, and who a user is in a container. */
#include "ax.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Standard streams (inetd) and what systemd passes (sd_listen_fds(3)) are meant for the program. */
static bool is_meant(int fd)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	return fd <= 2 || (pid && count && atoi(pid) == getpid() && fd < 3 + atoi(count));
}

/* A socket made outside of the mesh is bound by none of its rules.  Those that are not meant for the
 * program are closed; the daemon logs both kinds. */
void write_inherited(FILE *json)
{
	char kept[2048] = "", closed[2048] = "";
	DIR *folder = opendir("/proc/self/fd");
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		int fd = atoi(entry->d_name), family = AF_UNSPEC;
		socklen_t size = sizeof(family);
		if (*entry->d_name == '.' || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) ||
		    (family != AF_INET && family != AF_INET6 && family != AF_PACKET))
			continue;
		char *list = is_meant(fd) ? kept : closed;
		size_t used = strlen(list);
		snprintf(list + used, used < 2000 ? 2048 - used : 0, "%s%d", used ? "," : "", fd);
		if (list == closed)
			close(fd);
	}
	if (folder)
		closedir(folder);
	fprintf(json, ",\"kept\":[%s],\"closed\":[%s]", kept, closed);
}

/* The IPv4 nameservers of resolv.conf(5); without any, resolvers ask this host. */
void write_nameservers(FILE *json)
{
	char line[1024], text[64], *comma = "";
	struct in_addr address;
	FILE *file = fopen(RESOLV, "re");
	fputs(",\"nameservers\":[", json);
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " nameserver %63s", text) == 1 && inet_pton(AF_INET, text, &address) == 1) {
			fprintf(json, "%s\"%s\"", comma, text);
			comma = ",";
		}
	if (file)
		fclose(file);
	fputs(*comma ? "]" : "\"127.0.0.1\"]", json);
}

/* Which numbers `name` has here: in a container, users are the image's and not the node's. */
void write_user(FILE *json, const char *name)
{
	char *end;
	unsigned long number = strtoul(name, &end, 10);
	struct passwd *user = *end ? getpwnam(name) : getpwuid(number);
	if (!user)
		fail(EX_DATAERR, "--user %s: there is no such user here", name);
	fprintf(json, ",\"ids\":[%u,%u]", user->pw_uid, user->pw_gid);
}
