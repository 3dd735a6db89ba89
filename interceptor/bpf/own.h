/* An app with a network of its own (a container, a pod): its addresses, ports and loopback are what they
 * were.  connect() and sendmsg() are decided, and whoever policy let through to somebody else is refused. */
#pragma once
#include "tcp.h"

/* One more socket serves this port of the pod, at `ip` (0: every address).  Its own loopback and IPv6
 * alone are no business of the mesh's. */
NOINLINE int own_serve(struct app *app, __u32 ip, __u16 port, __u8 protocol, __u64 cookie)
{
	__u32 id = app->id;
	struct port_key key = { .app = id, .port = port, .protocol = protocol };
	struct port fresh = { .real = port, .dual = PORT_DUAL | PORT_OWN, .lasting = port, .ip = ip, .cookie = cookie }, *found;
	struct event event = { .kind = EVENT_LISTEN, .app = id, .ip = app->ip, .port = port, .real = port,
			       .protocol = protocol, .cookie = cookie };
	struct pod *pod = bpf_map_lookup_elem(&pods, &id);
	if ((ip & 0xff) == 127 || !pod)
		return 0;
	if (!ip)
		fresh.ip = pod->ip;
	if (bpf_map_update_elem(&served, &cookie, &key, BPF_NOEXIST))
		return 0; /* counted already, or the map is full */
	bpf_map_update_elem(&ports, &key, &fresh, BPF_NOEXIST);
	found = bpf_map_lookup_elem(&ports, &key);
	if (!found) {
		event.kind = EVENT_FULL;
		tell(&event);
	} else if (__sync_fetch_and_add(&found->listening, 1) <= 0) {
		found->ip = fresh.ip;
		found->cookie = cookie;
		tell(&event);
	}
	return 0;
}

INLINE void own_listen(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	__u32 ip = ctx->local_ip4;
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	if (ctx->family == AF_INET6 && ctx->local_ip6[2] != MAPPED &&
	    (ctx->local_ip6[0] | ctx->local_ip6[1] | ctx->local_ip6[2] | ctx->local_ip6[3]))
		return;
	own_serve(&state->owner, ip, ctx->local_port, TCP, bpf_get_socket_cookie(ctx));
}

/* A SYN at a pod's listener.  Who was let through to somebody else at this address is refused; a
 * stranger (a probe, a neighbour outside the mesh) is admitted. */
NOINLINE int own_admit(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = {};
	struct transport tcp = {};
	struct app *app = bpf_get_local_storage(&apps, 0);
	struct crossing_key key = { .protocol = TCP };
	struct crossing *found;
	if (sender_tuple(skb, &tuple, &tcp, sizeof tcp) != sizeof tuple.ipv4 || !(tcp.flags & SYN) || (tcp.flags & ACK))
		return PASS;
	key.from = tuple.ipv4.daddr;
	key.to = tuple.ipv4.saddr;
	key.from_port = bpf_ntohs(tuple.ipv4.dport);
	key.to_port = bpf_ntohs(tuple.ipv4.sport);
	found = bpf_map_lookup_elem(&crossings, &key);
	if (!found || found->target == app->id)
		return PASS;
	return refuse_stranger(app->id, &tuple, sizeof tuple.ipv4, TCP, tcp.sequence);
}
