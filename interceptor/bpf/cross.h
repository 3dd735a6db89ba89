/* Dials between network namespaces of this node: noted where the SYN leaves, read where it arrives. */
#pragma once
#include "bind.h"

#define CROSSES(ip) (((ip) & 0xff) != 127) /* what stays on loopback is found by a look-up of its socket */

/* The first SYN leaves, its source known: towards an app that is elsewhere, say who dials. */
NOINLINE int note_crossing(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	struct crossing_key key = { .from = ctx->local_ip4, .to = ctx->remote_ip4, .from_port = ctx->local_port,
				    .to_port = bpf_ntohs(ctx->remote_port >> 16), .protocol = TCP };
	struct crossing crossing = { .app = state->owner.id, .target = state->target, .asked_ip = state->peer.ip,
				     .asked_port = state->peer.port, .netns = bpf_get_netns_cookie(ctx) };
	if (state->dialling && state->target)
		bpf_map_update_elem(&crossings, &key, &crossing, BPF_ANY);
	return 0;
}

/* The socket is closed: its port may be another's next. */
NOINLINE int forget_crossing(struct bpf_sock_ops *ctx)
{
	struct crossing_key key = { .from = ctx->local_ip4, .to = ctx->remote_ip4, .from_port = ctx->local_port,
				    .to_port = bpf_ntohs(ctx->remote_port >> 16), .protocol = TCP };
	bpf_map_delete_elem(&crossings, &key);
	return 0;
}

/* Who dialled `app` from another namespace, by the ends of the packet that arrives; NULL: nobody that
 * policy let through. */
INLINE struct crossing *find_crossing(__u32 app, __u32 from, __u16 from_port, __u32 to, __u16 to_port, __u16 protocol)
{
	struct crossing_key key = { .from = from, .to = to, .from_port = from_port, .to_port = to_port, .protocol = protocol };
	struct crossing *found = bpf_map_lookup_elem(&crossings, &key);
	return found && found->target == app ? found : 0;
}

/* A SYN from a pod at a listener of the node's: accept() shows the pod's own address, and getsockname()
 * what was dialled. */
NOINLINE int admit_crossing(__u32 app, struct bpf_sock_tuple *sender)
{
	struct dial_key key = { .ip = sender->ipv4.daddr, .port = bpf_ntohs(sender->ipv4.dport), .local = bpf_ntohs(sender->ipv4.sport) };
	struct crossing *found = find_crossing(app, key.ip, key.port, sender->ipv4.saddr, key.local, TCP);
	struct dial dial = { .port = key.port };
	if (!found)
		return 0;
	dial.app = found->app;
	dial.to_ip = found->asked_ip;
	dial.to_port = found->asked_port;
	bpf_map_update_elem(&dials, &key, &dial, BPF_ANY);
	return 1;
}
