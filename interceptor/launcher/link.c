/* The app's interfaces, by rtnetlink(7): lo, and the one of `--interface`. */
#include "ax.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
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

/* Whether no interface but loopback is up: whoever is here has no network to lose. */
bool only_loopback_is_up(void)
{
	int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct if_nameindex *all = if_nameindex(), *each = all;
	bool alone = probe >= 0 && all;
	for (; alone && each->if_name; each++) {
		struct ifreq request = { 0 };
		strncpy(request.ifr_name, each->if_name, IFNAMSIZ - 1);
		/* one that went meanwhile is not up */
		alone = ioctl(probe, SIOCGIFFLAGS, &request) || !(request.ifr_flags & IFF_UP) ||
			(request.ifr_flags & IFF_LOOPBACK);
	}
	if (all)
		if_freenameindex(all);
	close(probe);
	return alone;
}

/* Whether we may; no other error is known. */
bool set_up_loopback(void)
{
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	bool up = !set_up(netlink, "lo", NULL);
	close(netlink);
	return up;
}

/* The app's address is on the interface, or on lo: where none but 127.x is, glibc's getaddrinfo finds
 * no IPv4.  In a namespace that was `found`, lo needs rights that a container has not: the daemon
 * sees to it then. */
void set_up_network(const char *ip, const char *interface, bool found)
{
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int error = 0;
	if (*interface) {
		if (strlen(interface) >= IFNAMSIZ)
			fail(EX_DATAERR, "--interface %s: longer than %d characters", interface, IFNAMSIZ - 1);
		error = set_up(netlink, interface, "dummy");
		if (error == EOPNOTSUPP) /* a kernel without that type: a bridge without ports looks alike */
			error = set_up(netlink, interface, "bridge");
	}
	const char *where = *interface ? interface : "lo";
	if (!error && *ip && (*interface || !found))
		error = add_address(netlink, where, ip);
	if (error)
		fail(error == EPERM ? EX_NOPERM : EX_OSERR, "cannot set up interface %s with address %s: %s%s", where,
		     ip, strerror(error), error != EPERM ? "" : *interface ? " (leave --interface out)" : " (or give --new-netns=false)");
	close(netlink);
}
