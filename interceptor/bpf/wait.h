/* Connect-wait: a connect() to what is known but not up yet waits, in the kernel's own SYN_SENT.
 *
 * Its SYN goes to a port of this node where nobody ever listens, the hole, and the RSTs that come
 * back are kept from the socket (admit.h) until the deadline.  A SYN that the kernel sends again is
 * led to whoever serves the destination by then: `sk_lookup` finds the wait, decides anew and gives
 * the SYN to that listener.  A backend outside is simply dialled again.  So blocking, non-blocking and
 * interrupted calls, SO_SNDTIMEO and close() are the kernel's own, and no process of ours has a part. */
#pragma once
#include "decide.h"

#define SOL_TCP 6
#define TCP_SYNCNT 7
#define TCP_RTO_MAX_MS 44 /* Linux 6.15; before, the pauses double: docs/connect-wait.md */
#define MAX_TRIES 127     /* of TCP_SYNCNT */
#define FIRST_PAUSE 25    /* jiffies until the first SYN is sent again: 25 to 250 ms */
#define NO_WAIT 1         /* as sock_state.wait_until: it could not wait, and `waits` has nothing of it */
#define PAUSE 1000        /* milliseconds: the least that TCP_RTO_MAX_MS takes */
#define MILLISECOND 1000000ull
#define SLOTS 8  /* listeners of one port (SO_REUSEPORT) that are kept: each new one in one of these */
#define WAITS_PER_APP 4096 /* one app shall not take what another's connect() needs: ports towards the hole */
#define ASTRAY 3 /* once may be a listener that closes just now */

INLINE int may_wait(struct app *app)
{
	return app->flags >> APP_WAIT_SHIFT && !(app->flags & APP_OWN_NETWORK); /* the hole is not in a pod's */
}

/* Whether a socket in this cgroup may be waiting; an injected one knows by itself. */
INLINE int may_wait_here(void)
{
	struct app *app = bpf_get_local_storage(&apps, 0);
	return app->flags & APP_HOLDER || may_wait(app);
}

INLINE struct hole *the_hole(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&holes, &zero);
}

/* connect() was decided: `error` or `to`.  Nobody listens: into the hole.  The only backend of a
 * vservice is outside: it is dialled, and may refuse for a while.  (Of several one that refuses is
 * down, not late: the next connect() finds another.) */
NOINLINE int wait_for_it(struct sock_state *state, struct target *to, int error)
{
	struct hole *hole = the_hole();
	if (!hole || !hole->port || (error ? error != ECONNREFUSED : to->app || !to->only))
		return error;
	if (error) {
		to->ip = LOOPBACK;
		to->port = hole->port;
		to->app = to->source = 0;
	}
	state->wait_until = bpf_ktime_get_coarse_ns() + (state->owner.flags >> APP_WAIT_SHIFT) * 100 * MILLISECOND;
	return 0;
}

/* The longest pause before a SYN is sent again: a second, or what spreads the tries over the whole wait.
 * It stays the same: the kernel also reckons by it how long so many tries may take in all, and a
 * shorter one near the end would be ETIMEDOUT before the deadline. */
INLINE void set_pause(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	int pause = (state->owner.flags >> APP_WAIT_SHIFT) * 100 / (MAX_TRIES - 17); /* the first are short */
	if (pause < PAUSE)
		pause = PAUSE;
	bpf_setsockopt(ctx, SOL_TCP, TCP_RTO_MAX_MS, &pause, sizeof pause);
}

NOINLINE int begin_wait(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	struct wait_key key = { .ip = ctx->local_ip4, .port = ctx->local_port };
	struct wait wait = { .app = state->owner.id, .cls = state->owner.cls, .ip = state->peer.ip, .port = state->peer.port };
	__u64 *count = bpf_map_lookup_elem(&waiters, &wait.app);
	int value = 0;
	if (!bpf_getsockopt(ctx, SOL_TCP, TCP_SYNCNT, &value, sizeof value))
		wait.tries = value;
	value = 0;
	if (!bpf_getsockopt(ctx, SOL_TCP, TCP_RTO_MAX_MS, &value, sizeof value))
		wait.pause = value;
	if (!count || *count >= WAITS_PER_APP || bpf_map_update_elem(&waits, &key, &wait, BPF_NOEXIST)) {
		/* too many, or another dial from this very port waits: refused as ever */
		state->wait_until = NO_WAIT;
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		return 0;
	}
	__sync_fetch_and_add(count, 1);
	value = MAX_TRIES;
	bpf_setsockopt(ctx, SOL_TCP, TCP_SYNCNT, &value, sizeof value);
	set_pause(ctx, state);
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG);
	return 0;
}

/* Connected: the socket's own settings again.  The wait stays until the end: with SYN cookies its
 * last ACK finds the listener by it. */
INLINE void end_wait(struct bpf_sock_ops *ctx, struct wait *wait)
{
	int value = wait->tries;
	wait->established = 1;
	bpf_setsockopt(ctx, SOL_TCP, TCP_SYNCNT, &value, sizeof value);
	value = wait->pause;
	if (value)
		bpf_setsockopt(ctx, SOL_TCP, TCP_RTO_MAX_MS, &value, sizeof value);
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
}

INLINE struct wait *wait_of(struct bpf_sock_ops *ctx)
{
	struct wait_key key = { .ip = ctx->local_ip4, .port = ctx->local_port };
	return bpf_map_lookup_elem(&waits, &key);
}

NOINLINE int forget_wait(struct bpf_sock_ops *ctx, __u32 app)
{
	struct wait_key key = { .ip = ctx->local_ip4, .port = ctx->local_port };
	__u64 *count = bpf_map_lookup_elem(&waiters, &app);
	if (!bpf_map_delete_elem(&waits, &key) && count)
		__sync_fetch_and_sub(count, 1);
	return 0;
}

/* listen(): kept by its real port, before the table says that it listens. */
INLINE void keep_listener(struct bpf_sock_ops *ctx)
{
	struct listener_key key = { .real = ctx->local_port, .slot = bpf_get_socket_cookie(ctx) % SLOTS };
	struct hole *hole = the_hole();
	if (hole && hole->active)
		bpf_sock_hash_update(ctx, &listeners, &key, BPF_ANY);
}

INLINE int lead_to_slot(struct bpf_sk_lookup *ctx, __u32 real, __u32 slot)
{
	struct listener_key key = { .real = real, .slot = slot };
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &key);
	long failed;
	if (!sk)
		return 0;
	failed = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return !failed;
}

/* Gives the SYN to a listener of that real port (of several that share it the kernel chooses one).
 * No loop: Linux 6.1 refuses one whose first instruction is fallen into ("back-edge"). */
INLINE int lead_to(struct bpf_sk_lookup *ctx, __u16 real)
{
	_Static_assert(SLOTS == 8, "a line for each");
	return lead_to_slot(ctx, real, 0) || lead_to_slot(ctx, real, 1) || lead_to_slot(ctx, real, 2) ||
	       lead_to_slot(ctx, real, 3) || lead_to_slot(ctx, real, 4) || lead_to_slot(ctx, real, 5) ||
	       lead_to_slot(ctx, real, 6) || lead_to_slot(ctx, real, 7);
}

/* A SYN at the hole: who serves what its dialler asked for, now? */
INLINE void look_up(struct bpf_sk_lookup *ctx)
{
	struct wait_key key = { .ip = ctx->remote_ip4, .port = bpf_ntohs(ctx->remote_port) };
	struct wait *wait = bpf_map_lookup_elem(&waits, &key);
	struct target to = { .protocol = TCP };
	struct app app = {};
	enum outcome outcome;
	int error;
	if (!wait)
		return;
	if (wait->established) {
		lead_to(ctx, wait->real);
		return;
	}
	app.id = wait->app;
	app.cls = wait->cls;
	to.port = wait->port;
	outcome = bpf_map_lookup_elem(&waiters, &app.id) ? decide(&app, wait->ip, wait->port, &to, &error) : MISS;
	if (outcome == CHOSEN && to.app && to.ip == LOOPBACK) {
		wait->target = to.app;
		wait->real = to.port;
		if (lead_to(ctx, to.port))
			return;
	} else if ((outcome == DEAD || outcome == REFUSED) && error == ECONNREFUSED) {
		wait->astray = 0;
		return;
	}
	/* its app has ended (the class may be another's by now), policy forbids it, a backend is outside or in a pod, or a listener is older than the first app that
	 * waits: a connect() made anew is told, or succeeds */
	if (wait->astray < ASTRAY)
		wait->astray++;
}
