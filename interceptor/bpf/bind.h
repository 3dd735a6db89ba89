/* bind(), listen(), close: one real port for each port of an app, and the service table. */
#pragma once
#include "connect.h"

#define ROW(state) ((state)->own ? PORT_AT_OWN : (state)->v6only)

/* The real port behind an app's port, taken from the pool at first use and kept until the app
 * ends or has not used it for long: so the kernel itself answers EADDRINUSE, SO_REUSEPORT and
 * TIME_WAIT.  0: the pool is empty, or the app has its share. */
NOINLINE int real_port(struct app *app, __u16 port, __u8 protocol, int v6)
{
	struct port_key key = { .app = app->id, .port = port, .protocol = protocol, .v6 = v6 };
	struct port *found = bpf_map_lookup_elem(&ports, &key), fresh = { .ip = app->ip };
	struct real real = { .app = app->id, .ip = app->ip, .port = port };
	struct real_key real_key = { .protocol = protocol };
	struct event event = { .kind = EVENT_POOL, .app = app->id, .port = port, .protocol = protocol };
	struct usage *usage;
	__u32 popped;
	if (found)
		return found->lasting ? found->lasting : found->real;
	usage = usage_of(app->id);
	if (usage && usage->ports >= APP_PORTS) {
		event.kind = EVENT_CROWDED;
		if (__sync_fetch_and_add(&usage->ports, 1) == APP_PORTS) /* said once */
			tell(&event);
		return 0;
	}
	if (bpf_map_pop_elem(&pool, &popped)) {
		tell(&event);
		return 0;
	}
	fresh.real = fresh.lasting = popped;
	if (bpf_map_update_elem(&ports, &key, &fresh, BPF_NOEXIST)) {
		bpf_map_push_elem(&pool, &popped, BPF_ANY); /* another thread was first, or the map is full */
		found = bpf_map_lookup_elem(&ports, &key);
		if (found)
			return found->lasting ? found->lasting : found->real;
		event.kind = EVENT_FULL;
		tell(&event);
		return 0;
	}
	if (usage)
		__sync_fetch_and_add(&usage->ports, 1);
	real_key.port = popped;
	bpf_map_update_elem(&reals, &real_key, &real, BPF_ANY);
	return popped;
}

/* Whether strangers may dial this port of the node, at `ip` (0: at any). */
INLINE int is_exposed(__u16 port, __u32 ip)
{
	struct real_key key = { .port = port, .protocol = TCP };
	struct real *real = bpf_map_lookup_elem(&reals, &key);
	return real && real->exposed && (!real->at || !ip || ip == real->at);
}

/* bind() to port 0: a second socket that asks for the number that the kernel chose shall meet it.  The app
 * may have bound that number by name before, and the port of the pool behind it be in TIME_WAIT, of which
 * the choice knew nothing: where nobody serves there, the app's next bind() to the number gets another one.
 * The old one stays the app's, in a row of its own, until the daemon gives back what is idle. */
NOINLINE int choose(struct sock_state *state, __u16 number)
{
	struct port_key key = { .app = state->owner.id, .port = number, .protocol = TCP }, rest = key;
	struct port fresh = { .real = number, .ip = state->owner.ip }, idle = {}, *found;
	struct real_key real_key = { .protocol = TCP };
	struct real back = { .app = state->owner.id, .ip = state->owner.ip, .port = number };
	rest.v6 = PORT_RESTING;
	for (__u64 row = 0; row < PORT_RESTING; row++) {
		key.v6 = row;
		found = bpf_map_lookup_elem(&ports, &key);
		rest.port = real_key.port = idle.real = idle.lasting = found ? found->lasting : 0;
		if (!found || !idle.lasting || found->listening > 0 || is_exposed(idle.real, 0) || bpf_map_update_elem(&ports, &rest, &idle, BPF_ANY))
			continue;
		bpf_map_delete_elem(&ports, &key);
		bpf_map_delete_elem(&reals, &real_key);
	}
	key.v6 = ROW(state);
	real_key.port = number;
	if (bpf_map_update_elem(&ports, &key, &fresh, BPF_NOEXIST))
		return 0;
	bpf_map_update_elem(&reals, &real_key, &back, BPF_ANY);
	state->chosen = number;
	return 0;
}

/* Its socket is closed. */
NOINLINE int unchoose(struct sock_state *state)
{
	struct port_key key = { .app = state->owner.id, .port = state->chosen, .protocol = TCP, .v6 = ROW(state) };
	struct real_key real_key = { .port = state->chosen, .protocol = TCP };
	struct port *found = bpf_map_lookup_elem(&ports, &key);
	state->chosen = 0;
	if (!found || found->lasting || found->listening > 0)
		return 0;
	bpf_map_delete_elem(&reals, &real_key);
	bpf_map_delete_elem(&ports, &key);
	return 0;
}

/* One more socket serves this port of the app: the table has it before listen() (UDP: bind())
 * returns, whether or not a daemon lives. */
NOINLINE int serve(struct sock_state *state, __u16 real, __u8 protocol, int dual, __u64 cookie)
{
	if (!state->bound.set)
		state->bound = (struct name){}, state->own = 0; /* what a bind() that failed had asked for */
	__u16 port = state->bound.port ? state->bound.port : real;
	struct port_key key = { .app = state->owner.id, .port = port, .protocol = protocol, .v6 = ROW(state) };
	struct real_key real_key = { .port = real, .protocol = protocol };
	struct real back = { .app = state->owner.id, .ip = state->owner.ip, .port = port };
	struct port fresh = { .real = real, .ip = state->owner.ip };
	struct event event = { .kind = EVENT_LISTEN, .app = state->owner.id, .ip = state->owner.ip, .port = port,
			       .real = real, .protocol = protocol, .cookie = cookie };
	struct port *found = bpf_map_lookup_elem(&ports, &key);
	if (!found) {
		bpf_map_update_elem(&ports, &key, &fresh, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&ports, &key);
		if (!found) {
			event.kind = EVENT_FULL;
			tell(&event);
			return 0;
		}
		bpf_map_update_elem(&reals, &real_key, &back, BPF_ANY);
	}
	if (found->real != real) {
		/* The kernel chose a number that the app also has a pool port for: it counts while it
		 * serves, unless that one serves already. */
		if (found->listening > 0)
			return 0;
		found->real = real;
		bpf_map_update_elem(&reals, &real_key, &back, BPF_ANY);
	}
	state->cookie = cookie;
	state->real = real;
	event.scope = state->bound.scope;
	found->scope = state->bound.scope;
	found->dual = dual;
	if (__sync_fetch_and_add(&found->listening, 1) <= 0) {
		found->cookie = cookie;
		if (protocol == TCP || state->bound.port)
			tell(&event);
	}
	return 0;
}

/* One socket fewer: only one that was counted.  With the last one goes a port of the kernel's choice,
 * which may be anybody's next. */
NOINLINE int unserve(struct sock_state *state, __u8 protocol)
{
	__u16 port = state->bound.port ? state->bound.port : state->real;
	struct port_key key = { .app = state->owner.id, .port = port, .protocol = protocol, .v6 = ROW(state) };
	struct event event = { .kind = EVENT_UNLISTEN, .app = state->owner.id, .ip = state->owner.ip, .port = port,
			       .real = state->real, .protocol = protocol, .cookie = state->cookie, .scope = state->bound.scope };
	struct real_key real_key = { .port = state->real, .protocol = protocol };
	struct port *found;
	if (!state->real)
		return 0;
	state->real = 0;
	found = bpf_map_lookup_elem(&ports, &key);
	if (!found || __sync_fetch_and_add(&found->listening, -1) != 1)
		return 0;
	if (!found->lasting) {
		bpf_map_delete_elem(&reals, &real_key);
		bpf_map_delete_elem(&ports, &key);
	} else if (found->lasting != real_key.port) {
		bpf_map_delete_elem(&reals, &real_key);
		found->real = found->lasting;
	}
	if (protocol == UDP && !state->bound.port)
		return 0;
	tell(&event);
	if (found->lasting && *(volatile __s32 *)&found->listening > 0) {
		event.kind = EVENT_LISTEN; /* another listens since; its event may have come before ours */
		tell(&event);
	}
	return 0;
}

/* A socket that is counted by its cookie (`served`) is closed. */
NOINLINE int gone(__u64 cookie)
{
	struct port_key *key = bpf_map_lookup_elem(&served, &cookie), copy;
	struct event event = { .kind = EVENT_UNLISTEN, .cookie = cookie };
	struct port *found;
	if (!key)
		return 0;
	copy = *key;
	if (bpf_map_delete_elem(&served, &cookie))
		return 0; /* another hook was first */
	found = bpf_map_lookup_elem(&ports, &copy);
	if (!found || __sync_fetch_and_add(&found->listening, -1) != 1)
		return 0;
	event.app = copy.app;
	event.port = copy.port;
	event.protocol = copy.protocol;
	event.real = found->real;
	event.scope = found->scope;
	if (found->dual & PORT_OWN)
		bpf_map_delete_elem(&ports, &copy);
	tell(&event);
	return 0;
}
