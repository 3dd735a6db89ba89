/* sockops: the life of TCP sockets, from listen() and the first SYN to the end. */
#pragma once
#include "admit.h"

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
		unserve(state, TCP);
	else if (state->start)
		count(ctx, state, ctx->args[0] != BPF_TCP_SYN_SENT);
}
