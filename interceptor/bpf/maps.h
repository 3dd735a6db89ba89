/* Every map.  All are pinned by name; Python writes those of the decision, the programs the rest. */
#pragma once
#include "abi.h"
#include "helpers.h"

#define MAP(name, kind, count, flags, ktype, vtype)                                                \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__uint(max_entries, count);                                                        \
		__uint(map_flags, flags);                                                          \
		__type(key, ktype);                                                                \
		__type(value, vtype);                                                              \
	} name SEC(".maps")

/* Who runs in the cgroup that the running program is attached to: no look-up by task is needed,
 * and a child cgroup of an app's is still that app. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct app);
} apps SEC(".maps");

/* Made at bind(), listen() or connect(); for an accepted socket when its name is asked for (not
 * cloned from the listener: an allocation at every connection is the dearest thing here). */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sock_state);
} sockets SEC(".maps");

/* The decision, written by Python.  A key's index never changes while the key lives; a service
 * is published by one 8-byte store; nothing a program may hold is reused within a second. */
MAP(keys, BPF_MAP_TYPE_HASH, 131072, BPF_F_NO_PREALLOC, struct key, __u32);
MAP(services, BPF_MAP_TYPE_ARRAY, 131072, BPF_F_MMAPABLE, __u32, __u64);
MAP(verdicts, BPF_MAP_TYPE_ARRAY, 1048576, BPF_F_MMAPABLE, __u32, __u64);
MAP(groups, BPF_MAP_TYPE_ARRAY, 131072, BPF_F_MMAPABLE, __u32, struct group);
MAP(backends, BPF_MAP_TYPE_ARRAY, 524288, BPF_F_MMAPABLE, __u32, struct backend);
MAP(locals, BPF_MAP_TYPE_HASH, 256, BPF_F_NO_PREALLOC, __u32, __u32); /* the node's addresses */

/* Apps whose sockets are injected and that live: their flags, by id. */
MAP(living, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, __u32, __u32);

/* The service table, written by the programs: room for every port of the node. */
MAP(ports, BPF_MAP_TYPE_HASH, 262144, BPF_F_NO_PREALLOC, struct port_key, struct port);
MAP(reals, BPF_MAP_TYPE_HASH, 131072, BPF_F_NO_PREALLOC, struct real_key, struct real);
MAP(dials, BPF_MAP_TYPE_LRU_HASH, 65536, 0, struct dial_key, struct dial);
MAP(flows, BPF_MAP_TYPE_LRU_HASH, 65536, 0, struct flow_key, struct flow);
MAP(pods, BPF_MAP_TYPE_HASH, 4096, BPF_F_NO_PREALLOC, __u32, struct pod); /* by app */
MAP(crossings, BPF_MAP_TYPE_LRU_HASH, 65536, 0, struct crossing_key, struct crossing);
/* By cookie: listening sockets that no program saw begin, or that own no port of the pool. */
MAP(served, BPF_MAP_TYPE_HASH, 16384, BPF_F_NO_PREALLOC, __u64, struct port_key);
MAP(counts, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, struct count_key, struct count);
MAP(shares, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, __u32, __u64); /* an app's entries in it */
MAP(others, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, __u32, struct count); /* beyond its share, added up */
MAP(failures, BPF_MAP_TYPE_LRU_HASH, 16384, 0, struct failure_key, struct failure);
MAP(usages, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, __u32, struct usage); /* by app */
/* Events that were not told: 0 of the service table, so that it must be read anew; 1 refusals. */
MAP(lost, BPF_MAP_TYPE_ARRAY, 2, BPF_F_MMAPABLE, __u32, __u64);

/* Connect-wait (wait.h). */
MAP(holes, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct hole);
MAP(waiters, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, __u32, __u64); /* living apps: how many of `waits` are theirs */
MAP(waits, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, struct wait_key, struct wait);
MAP(listeners, BPF_MAP_TYPE_SOCKHASH, 16384, 0, struct listener_key, __u64);

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 32768);
	__uint(value_size, sizeof(__u32));
} pool SEC(".maps"); /* ports of the node that are reserved and free */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

NOINLINE struct usage *usage_of(__u32 app)
{
	struct usage *found = bpf_map_lookup_elem(&usages, &app), fresh = {};
	if (found)
		return found;
	bpf_map_update_elem(&usages, &app, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&usages, &app);
}

/* Whether the app has room in the ring, this second: one that dials or listens in a loop must not
 * cost the others their events. */
INLINE int has_room(struct event *event, int refusal)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct usage *usage = usage_of(event->app);
	if (!usage)
		return 1;
	if (now - usage->since > 1000000000) {
		usage->since = now;
		usage->told = 0;
	}
	return usage->told < (refusal ? TOLD_REFUSALS : TOLD) && (usage->told++, 1);
}

/* Tells the daemon.  What is not told is counted: the daemon then reads the tables anew. */
NOINLINE void tell(struct event *from)
{
	__u32 refusal = from->kind > EVENT_UNLISTEN && from->kind != EVENT_CROWDED;
	struct event *event = has_room(from, refusal) ? bpf_ringbuf_reserve(&events, sizeof *event, 0) : 0;
	if (!event) {
		__u64 *count = bpf_map_lookup_elem(&lost, &refusal);
		if (count)
			__sync_fetch_and_add(count, 1);
		return;
	}
	from->time = bpf_ktime_get_coarse_ns();
	*event = *from;
	bpf_ringbuf_submit(event, 0);
}

/* The state of a socket and who owns it; NULL where the socket is not the mesh's.  An app's own
 * cgroup decides; for an injected socket, made in the holder's cgroup, the socket itself does. */
INLINE struct sock_state *owned(void *sk)
{
	struct app *app = bpf_get_local_storage(&apps, 0);
	struct sock_state *state;
	__u32 *flags;
	if (!app->id)
		return 0;
	if (app->flags & APP_HOLDER) {
		state = bpf_sk_storage_get(&sockets, sk, 0, 0);
		if (!state || !state->owner.id)
			return 0;
		flags = bpf_map_lookup_elem(&living, &state->owner.id);
		state->owner.flags = flags ? *flags : APP_EMPTY | APP_ENDED;
		return state;
	}
	state = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (state)
		state->owner = *app; /* each time: an app's class can change */
	return state;
}
