/* The app's own namespaces, its view of resolv.conf, and its user. */
#include "ax.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* Whether we are root to some container only: host users are mapped to others here. */
bool in_user_namespace(void)
{
	unsigned inside = 1, outside = 1, count = 0;
	FILE *map = fopen("/proc/self/uid_map", "re");
	int read = map ? fscanf(map, "%u %u %u", &inside, &outside, &count) : 0;
	if (map)
		fclose(map);
	return read == 3 && (inside || outside || count != (unsigned)-1);
}

static bool write_text(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	bool written = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);
	close(file);
	return written;
}

/* An ordinary user makes the namespaces within a user namespace, in which it is still itself and
 * nobody else is anybody.  The rights over it that this gives go at exec.  An errno, 0 for success. */
static int enter_user_namespace(int namespaces)
{
	char user[32], group[32];
	snprintf(user, sizeof(user), "%u %u 1", geteuid(), geteuid());
	snprintf(group, sizeof(group), "%u %u 1", getegid(), getegid());
	if (unshare(CLONE_NEWUSER | namespaces))
		return errno;
	/* user_namespaces(7): without the first, no group may be mapped */
	if (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", user) ||
	    !write_text("/proc/self/gid_map", group))
		return errno;
	return 0;
}

/* Before the daemon is asked: it must know what could be had.  Root makes a network namespace, an
 * ordinary user one within a user namespace; who may do neither goes on where it is, if that is a
 * place without a network (a container with --net none). */
void enter_namespaces(const struct options *options, struct place *place)
{
	*place = (struct place){ 0 };
	/* a container may have the directory elsewhere than the daemon has it */
	snprintf(place->resolv, sizeof(place->resolv), "%s/resolv.conf", options->run_dir);
	bool shows = options->dns_override && !access(place->resolv, R_OK) && !access(RESOLV, F_OK);
	int mounts = shows ? CLONE_NEWNS : 0, error;
	place->mounts = mounts;
	if (options->new_netns && !unshare(CLONE_NEWNET | mounts)) {
		place->found = place->lonely = !set_up_loopback(); /* CAP_SYS_ADMIN without CAP_NET_ADMIN */
		return;
	}
	error = errno;
	place->lonely = only_loopback_is_up();
	if (!options->new_netns || (place->lonely && error == EPERM)) {
		place->found = true;
		place->mounts = mounts && !unshare(mounts);
		return;
	}
	if (error == EPERM && geteuid()) {
		error = enter_user_namespace(CLONE_NEWNET | mounts);
		if (!error && set_up_loopback())
			return;
		error = error && error != EACCES ? error : EPERM; /* AppArmor may give one without rights in it */
	}
	fail(error == EPERM ? EX_NOPERM : EX_OSERR, "cannot make a network namespace: %s (%s, or give --new-netns=false)",
	     strerror(error), geteuid() ? "be root or let users make user namespaces"
					: "it needs CAP_SYS_ADMIN, or in a container --net none");
}

/* Shows `file` as /etc/resolv.conf, in the app's own mount namespace.  Resolvers that ask over a
 * Unix socket would pass it by: where those are, nobody answers. */
void show_resolv(const char *file)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) || mount(file, RESOLV, NULL, MS_BIND, NULL))
		fail(EX_OSERR, "cannot mount %s over %s: %s (or give --dns-override=false)", file, RESOLV,
		     strerror(errno));
	mount(NULL, RESOLV, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL); /* all apps share the file */
	mount("/dev/null", "/run/systemd/resolve/io.systemd.Resolve", NULL, MS_BIND, NULL);
	mount("/dev/null", "/run/nscd/socket", NULL, MS_BIND, NULL);
}

void become(uid_t uid, gid_t gid)
{
	struct passwd *user = getpwuid(uid);
	int groups = user ? initgroups(user->pw_name, gid) : setgroups(1, &gid);
	if (geteuid() != uid && (groups || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)))
		fail(EX_NOPERM, "--user: cannot become user %u: %s", (unsigned)uid, strerror(errno));
}
