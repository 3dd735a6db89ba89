/* The decision's tables, read: destination -> service -> this class's group -> one live backend.
 * decision.py says what it must come to; a differential test compares the two. */
#pragma once
#include "maps.h"

#define DRAWS 16
#define SCAN 4096

/* A backend that is no app and failed so recently is left out while another is there.  A second is what
 * a program that tries again waits; a dead backend then costs at most one failed connect() a second. */
#define AVOID_NANOSECONDS 1000000000ull

struct target {
	__u32 ip;
	__u16 port, protocol;
	__u32 app, service, source;
	__u32 failed_ip; /* the last one that was left out, should there be no other */
	__u16 failed_port, choosy; /* choosy: another backend is there */
	__u32 only, reply;         /* the group has one backend; recvmsg() had shown who is meant */
};

/* What this class gets for the key: a group, or NULL where the key names no service. */
INLINE struct group *find_group(__u32 ip, __u16 port, __u8 protocol, __u32 cls, int *error)
{
	struct key key = { .ip = ip, .port = port, .protocol = protocol };
	__u32 *index = bpf_map_lookup_elem(&keys, &key), slot;
	__u64 *word, service;
	if (!index)
		return 0;
	slot = *index;
	word = bpf_map_lookup_elem(&services, &slot);
	if (!word)
		return 0;
	service = *(volatile __u64 *)word; /* one load: Python may be storing the next one */
	if (!(service & SERVICE_LIVE))
		return 0;
	slot = (__u32)service;
	if (service & SERVICE_PER_CLASS) {
		cls = service & SERVICE_PER_PEER ? cls >> 16 : cls & 0xffff;
		if (cls >= ((service >> SERVICE_CAPACITY_SHIFT) & 0xffff)) {
			*error = EACCES;
			return 0;
		}
		slot += cls;
		if (!(word = bpf_map_lookup_elem(&verdicts, &slot)))
			return 0;
		slot = (__u32)*word;
	}
	return bpf_map_lookup_elem(&groups, &slot);
}

/* The app's listening socket behind its port, for others (`loopback` 0) or on the app's own: one of the
 * asked family, else one at its own address, else one of the other family that serves both ([::], also,
 * but not on loopback, where we swallowed its V6ONLY). */
INLINE struct port *find_listener(__u32 app, __u16 port, __u8 protocol, int v6, int loopback)
{
	struct port_key key = { .app = app, .port = port, .protocol = protocol, .v6 = v6 };
	struct port *found = bpf_map_lookup_elem(&ports, &key);
	int taken = found && found->listening > 0;
	if (taken && found->scope != (loopback ? SCOPE_VIRTUAL : SCOPE_LOOPBACK))
		return found;
	if (!loopback) {
		key.v6 = PORT_AT_OWN;
		found = bpf_map_lookup_elem(&ports, &key);
		if (found && found->listening > 0)
			return found;
	}
	if (taken)
		return 0; /* the app does serve this family, elsewhere */
	key.v6 = !v6;
	found = bpf_map_lookup_elem(&ports, &key);
	return found && found->listening > 0 && (v6 ? found->dual & PORT_DUAL : !loopback && found->scope == SCOPE_ANY) ? found : 0;
}

INLINE int failed_lately(__u32 ip, __u16 port)
{
	struct failure_key key = { .ip = ip, .port = port };
	struct failure *failure = bpf_map_lookup_elem(&failures, &key);
	return failure && bpf_ktime_get_coarse_ns() - failure->time < AVOID_NANOSECONDS;
}

/* Fills `to` from a backend; false if nobody listens there, or it is to be avoided. */
INLINE int take(struct backend *backend, struct target *to)
{
	__u16 port = backend->port ? backend->port : to->port;
	struct port *listener;
	if (backend->kind == BACKEND_ADDRESS) {
		if (to->choosy && failed_lately(backend->target, port)) {
			to->failed_ip = backend->target;
			to->failed_port = port;
			return 0;
		}
		to->ip = backend->target;
		to->port = port;
		return 1;
	}
	listener = find_listener(backend->target, port, to->protocol, 0, 0);
	if (!listener)
		return 0;
	to->ip = listener->dual & PORT_OWN ? listener->ip : LOOPBACK;
	to->port = listener->real;
	to->app = backend->target;
	return 1;
}

struct scan { __u32 first, start, count; int found; struct target to; };

static long scan_one(__u64 i, struct scan *scan)
{
	__u32 slot = scan->first + (scan->start + (__u32)i) % scan->count;
	struct backend *backend = bpf_map_lookup_elem(&backends, &slot);
	if (!backend || !take(backend, &scan->to))
		return 0;
	scan->found = 1;
	return 1;
}

INLINE int take_failed(struct target *to)
{
	if (!to->failed_port)
		return 0;
	to->ip = to->failed_ip;
	to->port = to->failed_port;
	return 1;
}

/* One backend of the group.  Draws again when the drawn one does not listen, so that the choice
 * among the living is exactly weighted; when luck runs out, the first living one in order.  Where all
 * that is left failed lately, one of those. */
CHECKED_ONCE int pick(__u32 first, __u32 count, __u32 start, int random, struct target *to)
{
	if (!to || !count)
		return 0;
	to->choosy = count > 1 && to->protocol == TCP;
	for (__u64 i = 0; i < DRAWS; i++) { /* 64 bits: of less that is spilled the verifier forgets the bound */
		__u32 at = random ? bpf_get_prandom_u32() % count : (start + (__u32)i) % count;
		__u32 slot = first + at;
		struct backend *backend = bpf_map_lookup_elem(&backends, &slot);
		if (!backend)
			return 0;
		if (random && bpf_get_prandom_u32() > backend->threshold) {
			slot = first + backend->alias;
			backend = bpf_map_lookup_elem(&backends, &slot);
			if (!backend)
				return 0;
		}
		if (take(backend, to))
			return 1;
		if (count == 1 || (!random && i + 1 >= count))
			return take_failed(to);
	}
	struct scan scan = { .first = first, .start = start, .count = count, .to = *to };
	bpf_loop(count < SCAN ? count : SCAN, scan_one, &scan, 0);
	*to = scan.to;
	return scan.found || take_failed(to);
}

enum outcome { MISS, CHOSEN, DIRECT, DEAD, REFUSED };

/* What the key's group says.  *error: of a refusal; where nobody listens the group's own, 0
 * meaning that the address is then dialled as it is. */
INLINE enum outcome balance(__u32 ip, __u16 port, __u32 cls, struct target *to, int *error)
{
	struct group *group;
	__u32 start;
	int random;
	*error = 0;
	group = find_group(ip, port, to->protocol, cls, error);
	/* The tag: an element of `keys` may be recycled for another key while this program holds it. */
	if (!group || group->kind == GROUP_NONE || group->tag != ip * 0x9E3779B1u + (port << 16 | to->protocol))
		return *error ? REFUSED : MISS;
	to->service = group->service;
	if (group->kind == GROUP_DIRECT)
		return DIRECT;
	*error = group->error;
	if (group->kind == GROUP_REFUSE)
		return REFUSED;
	to->source = group->source_ip;
	to->only = group->count == 1;
	random = group->policy == POLICY_RANDOM;
	start = random ? bpf_get_prandom_u32() : (__u32)__sync_fetch_and_add(&group->next, 1);
	return pick(group->first, group->count, start, random, to) ? CHOSEN : DEAD;
}

/* The whole decision for a destination that is not loopback.  In `to`: port and protocol going
 * in; the real address coming out where it says CHOSEN. */
INLINE enum outcome decide(struct app *app, __u32 ip, __u16 port, struct target *to, int *error)
{
	enum outcome outcome = balance(ip, port, app->cls, to, error), any;
	int dead;
	if (outcome == MISS) {
		/* A real pool port dialled at a node address counts as the service behind it. */
		struct real_key key = { .port = port, .protocol = to->protocol };
		struct real *real;
		if (bpf_map_lookup_elem(&locals, &ip) && (real = bpf_map_lookup_elem(&reals, &key))) {
			ip = real->ip;
			to->port = port = real->port;
			outcome = balance(ip, port, app->cls, to, error);
		}
	}
	if (outcome != MISS && outcome != DEAD)
		return outcome;
	dead = *error;
	any = balance(ip, 0, app->cls, to, error);
	if (any != MISS && !(any == REFUSED && outcome == DEAD)) /* what refuses other ports says nothing of this one */
		return any == DEAD && !*error ? DIRECT : any;
	*error = dead;
	return outcome == MISS ? balance(0, 0, app->cls, to, error) : dead ? DEAD : DIRECT; /* 0: what has no key */
}
