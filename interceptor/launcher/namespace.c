/* The app's own network namespace, its view of resolv.conf, and its user. */
#include "ax.h"
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pwd.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

struct part { int type; const void *data; size_t length; };

/* One rtnetlink request of a body and two attributes (a NULL is left out).  An errno, 0 for success. */
static int request(int netlink, int type, struct part body, struct part first, struct part second)
{
	struct { struct nlmsghdr header; char space[256]; } message = { 0 };
	struct { struct nlmsghdr header; struct nlmsgerr error; char echo[512]; } answer;
	message.header.nlmsg_type = type;
	message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | (first.data ? NLM_F_CREATE | NLM_F_EXCL : 0);
	message.header.nlmsg_len = NLMSG_LENGTH(body.length);
	memcpy(NLMSG_DATA(&message.header), body.data, body.length);
	for (struct part *part = (struct part[]){ first, second, { 0 } }; part->data; part++) {
		struct rtattr *end = (void *)((char *)&message + NLMSG_ALIGN(message.header.nlmsg_len));
		*end = (struct rtattr){ .rta_type = part->type, .rta_len = RTA_LENGTH(part->length) };
		memcpy(RTA_DATA(end), part->data, part->length);
		message.header.nlmsg_len = NLMSG_ALIGN(message.header.nlmsg_len) + RTA_SPACE(part->length);
	}
	if (send(netlink, &message, message.header.nlmsg_len, 0) < 0)
		return errno;
	return recv(netlink, &answer, sizeof(answer), 0) < 0 ? errno : -answer.error.error;
}

/* Sets up lo (no `kind`), or makes a link and sets it up. */
static int set_up(int netlink, const char *name, const char *kind)
{
	struct ifinfomsg link = { .ifi_index = kind ? 0 : 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct { struct rtattr header; char text[8]; } info = { { sizeof(info), IFLA_INFO_KIND }, "" };
	strcpy(info.text, kind ? kind : "");
	return request(netlink, RTM_NEWLINK, (struct part){ 0, &link, sizeof(link) },
		       (struct part){ IFLA_IFNAME, kind ? name : NULL, strlen(name) + 1 },
		       (struct part){ IFLA_LINKINFO, &info, sizeof(info) });
}

static int add_address(int netlink, const char *interface, const char *text)
{
	struct in_addr ip;
	struct ifaddrmsg address = { .ifa_family = AF_INET, .ifa_prefixlen = 32,
				     .ifa_index = if_nametoindex(interface) };
	if (inet_pton(AF_INET, text, &ip) != 1)
		return EINVAL;
	return request(netlink, RTM_NEWADDR, (struct part){ 0, &address, sizeof(address) },
		       (struct part){ IFA_LOCAL, &ip, sizeof(ip) }, (struct part){ IFA_ADDRESS, &ip, sizeof(ip) });
}

/* Leaves the caller's network for an empty one.  The app's address is on the interface, or on lo:
 * where none but 127.x is, glibc's getaddrinfo finds no IPv4. */
void enter_network(const char *ip, const char *interface)
{
	if (unshare(CLONE_NEWNET))
		fail(errno == EPERM ? EX_NOPERM : EX_OSERR, "cannot make a network namespace: %s%s",
		     strerror(errno), errno == EPERM ? " (it needs root: or give --new-netns=false)" : "");
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int error = set_up(netlink, "lo", NULL);
	if (!error && *interface) {
		if (strlen(interface) >= IFNAMSIZ)
			fail(EX_DATAERR, "--interface %s: longer than %d characters", interface, IFNAMSIZ - 1);
		error = set_up(netlink, interface, "dummy");
		if (error == EOPNOTSUPP) /* a kernel without that type: a bridge without ports looks alike */
			error = set_up(netlink, interface, "bridge");
	}
	const char *where = *interface ? interface : "lo";
	if (error || (*ip && (error = add_address(netlink, where, ip))))
		fail(EX_OSERR, "cannot set up interface %s with address %s: %s", where, ip, strerror(error));
	close(netlink);
}

/* Shows `file` as /etc/resolv.conf, in a mount namespace of the app's own.  Resolvers that ask
 * over a Unix socket would pass it by: where those are, nobody answers.  Unless it `must` be,
 * the launch goes on where the caller may not mount (port 53 of the nameservers is caught then). */
void show_resolv(const char *file, bool must)
{
	static const char target[] = "/etc/resolv.conf";
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) ||
	    mount(file, target, NULL, MS_BIND, NULL)) {
		if (!must && errno == EPERM)
			return;
		fail(EX_OSERR, "cannot mount %s over %s: %s (or give --dns-override=false)", file, target,
		     strerror(errno));
	}
	mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL); /* all apps share the file */
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
