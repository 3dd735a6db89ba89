/* connect() and sendmsg() of an app with a network of its own (a container, a pod). */
#pragma once
#include "decide.h"

#define LINK_LOCAL(ip) (((ip) & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000))
#define IS_LOOPBACK(ip) (((ip) & 0xff) == 127 || !(ip) || (ip) == LOOPBACK6) /* 0.0.0.0: this host */

#define IS_POD(state) ((state)->owner.flags & APP_OWN_NETWORK)
/* Never decided: the pod's own loopback, and the link-local addresses of its own network. */
#define IS_POD_ONLY(ip) (IS_LOOPBACK(ip) || LINK_LOCAL(ip))

/* What was chosen in the node's network is dialled at the node's address, as the pod sees it.  Returns 0
 * or an errno: the daemon's own sockets, on the node's loopback, are out of reach. */
NOINLINE int from_pod(struct app *app, struct target *to)
{
	__u32 id = app->id;
	struct pod *pod = bpf_map_lookup_elem(&pods, &id);
	struct crossing_key key = { .to_port = to->port, .protocol = UDP };
	struct crossing crossing = { .app = id, .target = to->app }, *old;
	if (!IS_LOOPBACK(to->ip))
		return 0;
	if (!to->app || !pod || !pod->node)
		return ECONNREFUSED;
	to->ip = pod->node;
	if (to->protocol != UDP)
		return 0; /* told when the SYN leaves: then its port is known */
	key.from = pod->ip;
	key.to = to->ip;
	crossing.netns = pod->netns;
	old = bpf_map_lookup_elem(&crossings, &key);
	if (!old || old->app != id || old->target != to->app)
		bpf_map_update_elem(&crossings, &key, &crossing, BPF_ANY);
	return 0;
}
