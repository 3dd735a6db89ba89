/* connect() and sendmsg(): the destination is decided, the socket remembers the names. */
#pragma once
#include "pod.h"
#include "wait.h"

#define DEAD_PORT 1 /* tcpmux: never a UDP service; 0 would be EINVAL */
#define DNS_PORT 53
/* A nameserver on "this host" may be one that the built-in DNS answers for: the tables say. */
#define IS_NAMESERVER(ip, port) ((port) == DNS_PORT && (ip) != LOOPBACK6)
#define DEAD_END(ip) ((ip) == LOOPBACK6 ? (ip) : LOOPBACK)

INLINE void deny(struct app *app, __u32 ip, struct target *to, __u16 port, int error)
{
	struct event event = { .kind = EVENT_DENIED, .app = app->id, .ip = ip, .port = port,
			       .protocol = to->protocol, .error = error, .service = to->service };
	tell(&event);
}

/* Decides ip:port for this app.  Returns 0 and the address to use in `to`, or an errno.  `known`
 * is set where the destination is one of ours. */
CHECKED_ONCE int resolve(struct app *app, __u32 ip, __u16 port, struct target *to, int *known)
{
	enum outcome outcome;
	int error = 0;
	if (!app || !to || !known)
		return EACCES;
	to->ip = ip;
	to->port = port;
	*known = 1;
	if (IS_LOOPBACK(ip)) {
		struct port *listener = find_listener(app->id, port, to->protocol, ip == LOOPBACK6, 1);
		if (listener) {
			to->ip = ip ? ip : LOOPBACK;
			to->port = listener->real;
			to->app = app->id;
			return 0;
		}
		outcome = IS_NAMESERVER(ip, port) ? decide(app, ip ? ip : LOOPBACK, port, to, &error) : DEAD;
		return outcome == CHOSEN ? 0 : ECONNREFUSED;
	}
	outcome = !LINK_LOCAL(ip) || port == DNS_PORT ? decide(app, ip, port, to, &error) : DIRECT;
	if (LINK_LOCAL(ip) && outcome != CHOSEN) {
		outcome = REFUSED;
		error = EACCES;
	}
	switch (outcome) {
	case CHOSEN:
		return 0;
	case DEAD:
	case REFUSED:
		if (error != ECONNREFUSED)
			deny(app, ip, to, port, error);
		return error;
	default:
		*known = 0;
		to->ip = ip;
		to->port = port;
		return 0;
	}
}

NOINLINE void remember_flow(struct flow_key *key, struct flow *flow)
{
	struct flow *old = bpf_map_lookup_elem(&flows, key);
	if (!old || old->ip != flow->ip || old->port != flow->port || old->app != flow->app || old->asked != flow->asked)
		bpf_map_update_elem(&flows, key, flow, BPF_ANY);
}

/* What this socket sends to `to` was decided for ip:port: admission and recvmsg() will ask.  A reply asks
 * for nothing: what comes next from there is a question again, and shows where its answer goes (`flows`
 * forgets old ones, one by one). */
INLINE void remember_way(void *ctx, struct sock_state *state, struct target *to, __u32 ip, __u16 port)
{
	struct flow_key key = { .cookie = bpf_get_socket_cookie(ctx), .ip = to->ip, .port = to->port };
	/* a pod answers as somebody outside does: no socket of its namespace is found here */
	struct flow flow = { .ip = ip ? ip : LOOPBACK, .port = port, .asked = !to->reply, .app = IS_LOOPBACK(to->ip) ? to->app : 0 };
	state->cookie = key.cookie;
	remember_flow(&key, &flow);
}

/* Whether recvmsg() showed ip:port to this app, on whatever socket: then that is who is meant. */
INLINE int is_reply(struct sock_state *state, __u32 ip, __u16 port, struct target *to)
{
	struct flow_key key = { .cookie = state->owner.id, .ip = ip, .port = port, .reply = 1 };
	struct flow *flow = to->protocol == UDP ? bpf_map_lookup_elem(&flows, &key) : 0;
	if (!flow)
		return 0;
	to->ip = flow->ip;
	to->port = flow->port;
	to->app = flow->app;
	to->reply = 1;
	return 1;
}

/* Answers first, then the tables; on loopback the tables first: a client's port, gone since, may be
 * one that the app serves on now. */
INLINE int route(struct sock_state *state, __u32 ip, __u16 port, struct target *to, int *known)
{
	int error;
	*known = 1;
	if (!IS_LOOPBACK(ip) && is_reply(state, ip, port, to))
		return 0;
	error = resolve(&state->owner, ip, port, to, known);
	if (IS_POD(state))
		return error || !*known ? error : from_pod(&state->owner, to);
	return error && IS_LOOPBACK(ip) && is_reply(state, ip, port, to) ? 0 : error;
}

/* connect(): in `to` goes the protocol; comes back the address to use. */
NOINLINE int dial(struct bpf_sock_addr *ctx, struct sock_state *state, __u32 ip, __u16 port, struct target *to)
{
	int known, error = route(state, ip, port, to, &known);
	state->dialling = 0;
	state->wait_until = 0;
	if (to->protocol == TCP && may_wait(&state->owner) && known && !IS_LOOPBACK(ip))
		error = wait_for_it(state, to, error);
	if (error && to->protocol == UDP && error == ECONNREFUSED) {
		/* connect() of UDP records an address and never fails; what is sent there is refused */
		to->ip = DEAD_END(ip);
		to->port = DEAD_PORT;
		error = 0;
	}
	if (error)
		return error;
	state->peer = (struct name){ .ip = ip, .port = port, .scope = to->protocol, .set = known };
	state->local = (struct name){ .ip = to->app == state->owner.id && IS_LOOPBACK(ip) ? 0 : state->owner.ip };
	state->local.set = state->local.ip != 0;
	state->target = to->app;
	state->service = to->service;
	state->dialling = 1;
	if (to->protocol == UDP && known)
		remember_way(ctx, state, to, ip, port);
	return 0;
}

/* sendmsg(): a reply goes back to whom recvmsg() showed, anything else is decided. */
NOINLINE int send_to(struct bpf_sock_addr *ctx, struct sock_state *state, __u32 ip, __u16 port, struct target *to)
{
	int known, error = route(state, ip, port, to, &known);
	if (error == ECONNREFUSED) { /* as an ICMP error would say it: by the next call, not this one */
		to->ip = DEAD_END(ip);
		to->port = DEAD_PORT;
		return 0;
	}
	if (!error && (known || state->bound.set))
		remember_way(ctx, state, to, ip, port);
	return error;
}

