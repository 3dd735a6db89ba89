/* The app's own network namespace, its view of resolv.conf, and its user. */
#include "ax.h"
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

static struct request {
	struct nlmsghdr header;
	union { struct ifinfomsg link; struct ifaddrmsg address; char space[256]; };
} request;

static void begin(int type, int flags, size_t body)
{
	memset(&request, 0, sizeof(request));
	request.header.nlmsg_type = type;
	request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	request.header.nlmsg_len = NLMSG_LENGTH(body);
}

static struct rtattr *attribute(int type, const void *data, size_t length)
{
	struct rtattr *end = (void *)((char *)&request + NLMSG_ALIGN(request.header.nlmsg_len));
	end->rta_type = type;
	end->rta_len = RTA_LENGTH(length);
	memcpy(RTA_DATA(end), data, length);
	request.header.nlmsg_len = NLMSG_ALIGN(request.header.nlmsg_len) + RTA_SPACE(length);
	return end;
}

/* Sends the request; the kernel answers at once.  An errno, 0 for success. */
static int transact(int netlink)
{
	struct { struct nlmsghdr header; struct nlmsgerr error; char echo[512]; } answer;
	if (send(netlink, &request, request.header.nlmsg_len, 0) < 0)
		return errno;
	if (recv(netlink, &answer, sizeof(answer), 0) < (ssize_t)NLMSG_LENGTH(sizeof(answer.error)))
		return EPROTO;
	return -answer.error.error;
}

static int add_link(int netlink, const char *name, const char *kind)
{
	begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(request.link));
	attribute(IFLA_IFNAME, name, strlen(name) + 1);
	struct rtattr *info = attribute(IFLA_LINKINFO, "", 0);
	attribute(IFLA_INFO_KIND, kind, strlen(kind));
	info->rta_len += RTA_SPACE(strlen(kind));
	return transact(netlink);
}

static int set_up(int netlink, int index)
{
	begin(RTM_NEWLINK, 0, sizeof(request.link));
	request.link.ifi_index = index;
	request.link.ifi_flags = request.link.ifi_change = IFF_UP;
	return transact(netlink);
}

static int add_address(int netlink, int index, const char *text)
{
	struct in_addr ip;
	if (inet_pton(AF_INET, text, &ip) != 1)
		return EINVAL;
	begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(request.address));
	request.address.ifa_family = AF_INET;
	request.address.ifa_prefixlen = 32;
	request.address.ifa_index = index;
	attribute(IFA_LOCAL, &ip, sizeof(ip));
	attribute(IFA_ADDRESS, &ip, sizeof(ip));
	return transact(netlink);
}

/* Leaves the caller's network for an empty one: lo with the app's address (without an address
 * that is not 127.x, glibc's getaddrinfo finds no IPv4), or the interface with it. */
void enter_network(const char *ip, const char *interface)
{
	int index = 1, error; /* lo is always the first */
	if (unshare(CLONE_NEWNET))
		fail(errno == EPERM ? EX_NOPERM : EX_OSERR, "cannot make a network namespace: %s%s",
		     strerror(errno), errno == EPERM ? " (it needs root: or give --new-netns=false)" : "");
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if ((error = set_up(netlink, index)))
		fail(EX_OSERR, "cannot set lo up: %s", strerror(error));
	if (*interface) {
		if (strlen(interface) >= IFNAMSIZ)
			fail(EX_DATAERR, "--interface %s: longer than %d characters", interface, IFNAMSIZ - 1);
		error = add_link(netlink, interface, "dummy");
		if (error == EOPNOTSUPP) /* a kernel without that type: a bridge without ports looks alike */
			error = add_link(netlink, interface, "bridge");
		index = if_nametoindex(interface);
		if (error || (error = set_up(netlink, index)))
			fail(EX_OSERR, "--interface %s: %s", interface, strerror(error));
	}
	if (*ip && (error = add_address(netlink, index, ip)))
		fail(EX_OSERR, "cannot use the address %s: %s", ip, strerror(error));
	close(netlink);
}

/* Shows `file` as /etc/resolv.conf, in a mount namespace of the app's own.  Resolvers that ask
 * over a Unix socket would pass it by: where those are, nobody answers.  Unless it `must` be,
 * the launch goes on without where the caller may not mount (the tables then catch port 53). */
void show_resolv(const char *file, bool must)
{
	static const char target[] = "/etc/resolv.conf";
	static const char *const resolvers[] = { "/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket",
						 "/var/run/nscd/socket" };
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) ||
	    mount(file, target, NULL, MS_BIND, NULL)) {
		if (must || errno != EPERM)
			fail(EX_OSERR, "cannot mount %s over %s: %s (or give --dns-override=false)", file, target,
			     strerror(errno));
		return;
	}
	mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL); /* all apps share the file */
	for (size_t i = 0; i < sizeof(resolvers) / sizeof(*resolvers); i++)
		mount("/dev/null", resolvers[i], NULL, MS_BIND, NULL);
}

void become(uid_t uid, gid_t gid)
{
	struct passwd *user = getpwuid(uid);
	int groups = user ? initgroups(user->pw_name, gid) : setgroups(1, &gid);
	if (geteuid() != uid && (groups || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)))
		fail(EX_NOPERM, "--user: cannot become user %u: %s", (unsigned)uid, strerror(errno));
}
