/* sockops: the life of TCP sockets, from listen() and the first SYN to the end. */
#pragma once
#include "admit.h"

#define ACCEPTED 0xffffffffu /* in `counts`: connections accepted from other nodes */

/* The accepted socket gets the names its dialler was known by, before accept() returns. */
INLINE void accepted(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	struct dial_key key = { .ip = ctx->remote_ip4, .port = bpf_ntohl(ctx->remote_port), .local = ctx->local_port };
	struct dial *dial = bpf_map_lookup_elem(&dials, &key);
	state->service = ACCEPTED;
	state->start = bpf_ktime_get_coarse_ns();
	state->dialling = 0;
	if (!dial)
		return;
	state->target = dial->app;
	state->peer = (struct name){ .ip = dial->ip, .port = key.port, .set = dial->ip != 0 };
	state->local = (struct name){ .ip = dial->to_ip, .port = dial->to_port, .set = 1 };
	bpf_map_delete_elem(&dials, &key);
	bpf_sock_ops_cb_flags_set(ctx, 0); /* the dialler's side counts this connection */
}

INLINE void count(struct bpf_sock_ops *ctx, struct sock_state *state, int established)
{
	struct count_key key = { .app = state->owner.id, .service = state->service };
	struct count *count = bpf_map_lookup_elem(&counts, &key), none = {};
	if (!count) {
		bpf_map_update_elem(&counts, &key, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&counts, &key);
		if (!count)
			return;
	}
	if (!established) {
		__sync_fetch_and_add(&count->failed, 1);
		return;
	}
	__sync_fetch_and_add(&count->closed, 1);
	__sync_fetch_and_add(&count->sent, ctx->bytes_acked);
	__sync_fetch_and_add(&count->received, ctx->bytes_received);
	__sync_fetch_and_add(&count->nanoseconds, bpf_ktime_get_coarse_ns() - state->start);
}

INLINE void closed(struct bpf_sock_ops *ctx, struct sock_state *state)
{
	if (ctx->args[0] == BPF_TCP_LISTEN)
		unserve(state, TCP, bpf_get_socket_cookie(ctx));
	else if (state->start)
		count(ctx, state, ctx->args[0] != BPF_TCP_SYN_SENT);
}
