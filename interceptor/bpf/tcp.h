/* sockops: the life of TCP sockets, from listen() and the first SYN to the end. */
#pragma once
#include "admit.h"

#define COUNTS_PER_APP 4096 /* a sixteenth of the table: no app crowds out the others */

/* Of the kernel's own struct; libbpf puts in the offset that this kernel has (CO-RE). */
struct sock { int sk_err; } __attribute__((preserve_access_index));

/* The entry of an app in a map, made where it is missing.  *made is set where it was. */
INLINE void *entry(void *map, void *key, void *fresh, int *made)
{
	void *found = bpf_map_lookup_elem(map, key);
	if (found)
		return found;
	*made = !bpf_map_update_elem(map, key, fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

/* Where the connection is counted.  NULL: the tables are full of other apps. */
NOINLINE struct count *counter(struct sock_state *state, __u32 ip, __u16 port)
{
	struct count_key key = { .app = state->owner.id };
	struct count *count, fresh = {};
	__u64 *share, none = 0;
	int made = 0;
	if (!state->peer.set) {
		key.kind = COUNT_OUTSIDE; /* whatever is dialled there: no entry for each */
	} else if (state->target == state->owner.id && IS_LOOPBACK(state->peer.ip)) {
		key.kind = COUNT_LOOPBACK;
	} else {
		key.kind = state->target ? COUNT_APP : COUNT_ADDRESS;
		key.ip = state->peer.ip;
		key.port = state->peer.port;
		key.target = state->target ? state->target : ip;
		key.backend_port = port;
	}
	if (state->counted != COUNTED_TOGETHER) {
		if ((count = bpf_map_lookup_elem(&counts, &key)))
			return count;
		share = entry(&shares, &key.app, &none, &made);
		if (share && *share < COUNTS_PER_APP) {
			made = 0;
			count = entry(&counts, &key, &fresh, &made);
			if (made)
				__sync_fetch_and_add(share, 1);
			if (count)
				return count;
		}
	}
	state->counted = COUNTED_TOGETHER;
	return entry(&others, &key.app, &fresh, &made);
}

#define REMOTE_PORT(ctx) ((__u16)bpf_ntohl((ctx)->remote_port)) /* it stands in the upper half */

/* Whether the SYN goes to the hole: where it is led in the end, that counts. */
INLINE int in_hole(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	struct hole *hole = state->wait_until ? the_hole() : 0;
	return hole && REMOTE_PORT(ctx) == hole->port && ctx->remote_ip4 == LOOPBACK;
}

INLINE void count_opened(struct bpf_sock_ops *ctx, struct sock_state *state, __u16 port)
{
	struct count *count = counter(state, ctx->remote_ip4, port);
	if (count) {
		__sync_fetch_and_add(&count->opened, 1);
		if (!state->counted)
			state->counted = COUNTED_ALONE;
	}
}

/* The first SYN leaves. */
INLINE void opened(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	int flags = BPF_SOCK_OPS_STATE_CB_FLAG;
	state->counted = COUNTED_NOT;
	state->start = bpf_ktime_get_coarse_ns(); /* also of dials that are not decided: IPv6, a pod's own */
	if (!in_hole(ctx, state))
		count_opened(ctx, state, REMOTE_PORT(ctx));
	if (state->wait_until) {
		begin_wait(ctx, state);
		return;
	}
	/* The other flag tells ax_sockops, for free, that somebody wants to hear of the success. */
	if (state->peer.set && !state->target)
		flags |= BPF_SOCK_OPS_RTO_CB_FLAG;
	bpf_sock_ops_cb_flags_set(ctx, flags);
}

/* A backend that is no app was reached: what failed there before is over. */
INLINE void reached(struct bpf_sock_ops *ctx)
{
	struct failure_key key = { .ip = ctx->remote_ip4, .port = REMOTE_PORT(ctx) };
	if (bpf_map_lookup_elem(&failures, &key))
		bpf_map_delete_elem(&failures, &key);
}

/* A backend that is no app did not answer, or refused: before connect() returns, every app knows. */
NOINLINE int mark_failure(__u32 ip, __u16 port, int error, __u64 now)
{
	struct failure_key key = { .ip = ip, .port = port };
	struct failure fresh = { .time = now, .consecutive = 1, .error = error };
	struct failure *failure = bpf_map_lookup_elem(&failures, &key);
	if (failure)
		fresh.consecutive += failure->consecutive;
	bpf_map_update_elem(&failures, &key, &fresh, BPF_ANY);
	return 0;
}

/* A socket that waits: its first pause, its success. */
NOINLINE int attend_wait(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sock_state *state;
	struct wait *wait;
	if (!may_wait_here() || !sk || !(state = bpf_sk_storage_get(&sockets, sk, 0, 0)) || state->wait_until <= NO_WAIT)
		return 0;
	if (ctx->op == BPF_SOCK_OPS_TIMEOUT_INIT) {
		if (ctx->remote_ip4 == LOOPBACK)
			ctx->reply = FIRST_PAUSE;
	} else if ((wait = wait_of(ctx))) {
		end_wait(ctx, wait);
		if (in_hole(ctx, state))
			count_opened(ctx, state, wait->real);
	}
	return 0;
}

/* `port`: the real one that was dialled. */
INLINE void ended(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct sock_state *state, __u16 port, int established)
{
	struct sock *kernel = bpf_skc_to_tcp_sock(sk);
	int error = kernel ? kernel->sk_err : 0; /* 0: this end closed, or gave up */
	struct count *count = counter(state, ctx->remote_ip4, port);
	__u64 now = bpf_ktime_get_coarse_ns();
	if (error && !established && state->peer.set && !state->target)
		mark_failure(ctx->remote_ip4, port, error, now);
	if (!count)
		return;
	if (!state->counted) /* opened under programs that did not count it */
		__sync_fetch_and_add(&count->opened, 1);
	__sync_fetch_and_add(&count->ended, 1);
	if (established) {
		__sync_fetch_and_add(&count->sent, ctx->bytes_acked);
		__sync_fetch_and_add(&count->received, ctx->bytes_received);
		__sync_fetch_and_add(&count->nanoseconds, now - state->start);
	} else {
		__sync_fetch_and_add(&count->failed, 1);
	}
	if (!error)
		return;
	__sync_fetch_and_add(error == ECONNREFUSED ? &count->refused : error == ETIMEDOUT ? &count->timed_out :
			     error == ECONNRESET || error == EPIPE ? &count->reset : &count->unreachable, 1);
	count->last_failure = now;
}

INLINE void closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct sock_state *state)
{
	__u16 port = REMOTE_PORT(ctx);
	struct wait *wait;
	if (ctx->args[0] == BPF_TCP_LISTEN) {
		unserve(state, TCP);
		return;
	}
	if (state->wait_until) {
		wait = state->wait_until > NO_WAIT ? wait_of(ctx) : 0;
		if (in_hole(ctx, state))
			port = wait && wait->established ? wait->real : 0; /* led nowhere: as if refused at once */
		if (wait)
			forget_wait(ctx, state->owner.id);
	}
	if (state->start && port)
		ended(ctx, sk, state, port, ctx->args[0] != BPF_TCP_SYN_SENT);
}
