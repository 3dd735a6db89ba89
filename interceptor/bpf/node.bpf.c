/* The kernel driver: every program, one line of translation each.  Read in this order: abi.h,
 * maps.h, decide.h, connect.h, bind.h, admit.h, tcp.h. */
#include "tcp.h"

#define IS_MAPPED(a) (!(a)[0] && !(a)[1] && (a)[2] == MAPPED)

INLINE int handled(__u32 protocol)
{
	return protocol == TCP || protocol == UDP;
}

INLINE int connect(struct bpf_sock_addr *ctx, __u32 ip, struct target *to)
{
	struct sock_state *state;
	if (!handled(ctx->protocol) || !(state = owned(ctx->sk)))
		return -1;
	to->protocol = ctx->protocol;
	return dial(ctx, state, ip, bpf_ntohs(ctx->user_port), to);
}

/* `--source-ip` of a vservice, towards backends outside. */
INLINE int bind_source(struct bpf_sock_addr *ctx, struct target *to)
{
	struct { __u16 family, port; __u32 ip; __u64 zero; } source = { .family = AF_INET, .ip = to->source };
	return to->source && !to->app ? bpf_bind(ctx, &source, sizeof source) : 0;
}

SEC("cgroup/connect4") int ax_connect4(struct bpf_sock_addr *ctx)
{
	struct target to = {};
	int error = connect(ctx, ctx->user_ip4, &to);
	if (error)
		return error < 0 ? PASS : fail(error);
	if (bind_source(ctx, &to))
		return fail(EADDRNOTAVAIL);
	ctx->user_ip4 = to.ip;
	ctx->user_port = bpf_htons(to.port);
	return PASS;
}

/* connect() or sendmsg() of the app's own ::1: never the host's. */
INLINE int own_loopback6(struct bpf_sock_addr *ctx)
{
	struct sock_state *state;
	struct port_key key = { .port = bpf_ntohs(ctx->user_port), .protocol = ctx->protocol, .v6 = 1 };
	struct port *listener;
	if (!handled(ctx->protocol) || !(state = owned(ctx->sk)))
		return PASS;
	key.app = state->owner.id;
	listener = bpf_map_lookup_elem(&ports, &key);
	if (!listener || listener->listening <= 0) {
		key.v6 = 0;
		listener = bpf_map_lookup_elem(&ports, &key);
		if (!listener || listener->listening <= 0 || !listener->dual)
			return fail(ECONNREFUSED);
	}
	state->peer = (struct name){ .port = key.port, .set = 1 };
	state->local.set = 0;
	state->target = key.app;
	state->dialling = 1;
	ctx->user_port = bpf_htons(listener->real);
	return PASS;
}

INLINE int is_loopback6(struct bpf_sock_addr *ctx)
{
	return !ctx->user_ip6[0] && !ctx->user_ip6[1] && !ctx->user_ip6[2] &&
	       (!ctx->user_ip6[3] || ctx->user_ip6[3] == bpf_htonl(1));
}

INLINE int is_link_local6(struct bpf_sock_addr *ctx)
{
	return (ctx->user_ip6[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

INLINE int unmapped6(struct bpf_sock_addr *ctx)
{
	if (is_loopback6(ctx))
		return own_loopback6(ctx);
	return is_link_local6(ctx) && owned(ctx->sk) ? fail(EACCES) : PASS;
}

SEC("cgroup/connect6") int ax_connect6(struct bpf_sock_addr *ctx)
{
	struct target to = {};
	int error;
	if (!IS_MAPPED(ctx->user_ip6))
		return unmapped6(ctx);
	error = connect(ctx, ctx->user_ip6[3], &to);
	if (error)
		return error < 0 ? PASS : fail(error);
	ctx->user_ip6[3] = to.ip;
	ctx->user_port = bpf_htons(to.port);
	return PASS;
}

/* Also for IPv4-mapped destinations of an AF_INET6 socket. */
SEC("cgroup/sendmsg4") int ax_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct target to = { .protocol = UDP };
	struct sock_state *state;
	int error;
	if (ctx->protocol != UDP || !(state = owned(ctx->sk)))
		return PASS;
	error = send_to(ctx, state, ctx->user_ip4, bpf_ntohs(ctx->user_port), &to);
	if (error)
		return fail(error);
	ctx->user_ip4 = to.ip;
	ctx->user_port = bpf_htons(to.port);
	return PASS;
}

SEC("cgroup/sendmsg6") int ax_sendmsg6(struct bpf_sock_addr *ctx)
{
	return IS_MAPPED(ctx->user_ip6) ? PASS : unmapped6(ctx);
}

SEC("cgroup/recvmsg4") int ax_recvmsg4(struct bpf_sock_addr *ctx)
{
	__u32 ip = ctx->user_ip4;
	__u16 port = bpf_ntohs(ctx->user_port);
	if (owned(ctx->sk)) {
		received_from(ctx, &ip, &port);
		ctx->user_ip4 = ip;
		ctx->user_port = bpf_htons(port);
	}
	return PASS;
}

SEC("cgroup/recvmsg6") int ax_recvmsg6(struct bpf_sock_addr *ctx)
{
	__u32 ip = ctx->user_ip6[3];
	__u16 port = bpf_ntohs(ctx->user_port);
	if (IS_MAPPED(ctx->user_ip6) && owned(ctx->sk)) {
		received_from(ctx, &ip, &port);
		ctx->user_ip6[3] = ip;
		ctx->user_port = bpf_htons(port);
	}
	return PASS;
}

SEC("cgroup/bind4") int ax_bind4(struct bpf_sock_addr *ctx)
{
	__u32 ip = ctx->user_ip4;
	__u16 port = bpf_ntohs(ctx->user_port);
	struct sock_state *state;
	int error;
	if (!handled(ctx->protocol) || !(state = owned(ctx->sk)))
		return PASS;
	error = rebind(state, &ip, &port, ctx->protocol, 0);
	if (error)
		return fail(error);
	ctx->user_ip4 = ip;
	ctx->user_port = bpf_htons(port);
	return PASS;
}

SEC("cgroup/bind6") int ax_bind6(struct bpf_sock_addr *ctx)
{
	__u32 any = 0, *ip = &any, mapped = ctx->user_ip6[3];
	__u16 port = bpf_ntohs(ctx->user_port);
	struct sock_state *state;
	int error, v6;
	if (!handled(ctx->protocol) || !(state = owned(ctx->sk)))
		return PASS;
	v6 = state->v6only;
	if (IS_MAPPED(ctx->user_ip6))
		ip = &mapped;
	else if (ctx->user_ip6[0] | ctx->user_ip6[1] | ctx->user_ip6[2] | ctx->user_ip6[3])
		v6 = is_loopback6(ctx) ? 2 : 1;
	if (v6 == 2)
		any = LOOPBACK;
	error = rebind(state, ip, &port, ctx->protocol, v6);
	if (error)
		return fail(error);
	if (ip == &mapped)
		ctx->user_ip6[3] = mapped;
	ctx->user_port = bpf_htons(port);
	return PASS;
}

INLINE int bound(struct bpf_sock *sk)
{
	struct sock_state *state = owned(sk);
	if (!state)
		return PASS;
	state->bound.set = 1;
	if (sk->protocol == UDP)
		serve(state, sk->src_port, UDP, sk->family == AF_INET6, bpf_get_socket_cookie(sk));
	return PASS;
}

SEC("cgroup/post_bind4") int ax_post_bind4(struct bpf_sock *sk)
{
	return bound(sk);
}

SEC("cgroup/post_bind6") int ax_post_bind6(struct bpf_sock *sk)
{
	return bound(sk);
}

SEC("cgroup/sock_release") int ax_sock_release(struct bpf_sock *sk)
{
	struct sock_state *state;
	if (sk->protocol == UDP && (state = owned(sk)) && state->cookie)
		unserve(state, UDP, bpf_get_socket_cookie(sk));
	return PASS;
}

SEC("cgroup/sock_create") int ax_sock_create(struct bpf_sock *sk)
{
	return sk->protocol == MPTCP ? fail(EPROTONOSUPPORT) : PASS; /* its subflows would pass no hook */
}

/* [::] must answer for the app's IPv4 address too: V6ONLY is remembered, not done. */
SEC("cgroup/setsockopt") int ax_setsockopt(struct bpf_sockopt *ctx)
{
	int *value = ctx->optval;
	struct sock_state *state;
	if (ctx->level != 41 /* IPPROTO_IPV6 */ || ctx->optname != 26 /* IPV6_V6ONLY */)
		return 1;
	if ((void *)(value + 1) > ctx->optval_end || !*value || !(state = owned(ctx->sk)))
		return 1;
	state->v6only = 1;
	ctx->optlen = -1;
	return 1;
}

/* The app's name for its own end: bound, or dialled from, or accepted at. */
INLINE void own_name(struct sock_state *state, __u32 *ip, __u16 *port)
{
	if (state->bound.set && state->bound.port)
		*port = state->bound.port;
	if (state->bound.set && state->bound.scope == SCOPE_VIRTUAL)
		*ip = state->bound.ip;
	if (state->local.set) {
		*ip = state->local.ip;
		if (state->local.port)
			*port = state->local.port;
	}
}

INLINE void peer_name(struct sock_state *state, __u32 *ip, __u16 *port)
{
	if (!state->peer.set)
		return;
	if (state->peer.ip)
		*ip = state->peer.ip;
	*port = state->peer.port;
}

/* What is known of a socket whose name is asked for.  An accepted one gets the names under which
 * it was dialled: admission remembered them for the tuple (accept() asks through this hook too). */
INLINE struct sock_state *known_socket(struct bpf_sock *sk)
{
	struct sock_state *state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	struct dial_key key = { .ip = sk->dst_ip4, .port = bpf_ntohs(sk->dst_port), .local = sk->src_port };
	struct dial *dial;
	if (state || sk->protocol != TCP || !(dial = bpf_map_lookup_elem(&dials, &key)))
		return state;
	state = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return 0;
	state->target = dial->app;
	state->peer = (struct name){ .ip = dial->ip, .port = key.port, .set = dial->ip != 0 };
	state->local = (struct name){ .ip = dial->to_ip, .port = dial->to_port, .set = 1 };
	return state;
}

#define NAME_PROGRAM(hook, which)                                                                  \
	SEC("cgroup/" #hook "4") int ax_##hook##4(struct bpf_sock_addr *ctx)                       \
	{                                                                                          \
		struct sock_state *state = known_socket(ctx->sk);                                  \
		__u32 ip = ctx->user_ip4;                                                          \
		__u16 port = bpf_ntohs(ctx->user_port);                                            \
		if (!state)                                                                        \
			return PASS;                                                               \
		which(state, &ip, &port);                                                          \
		ctx->user_ip4 = ip;                                                                \
		ctx->user_port = bpf_htons(port);                                                  \
		return PASS;                                                                       \
	}                                                                                          \
	SEC("cgroup/" #hook "6") int ax_##hook##6(struct bpf_sock_addr *ctx)                       \
	{                                                                                          \
		struct sock_state *state = known_socket(ctx->sk);                                  \
		__u32 ip = ctx->user_ip6[3];                                                       \
		__u16 port = bpf_ntohs(ctx->user_port);                                            \
		if (!state)                                                                        \
			return PASS;                                                               \
		which(state, &ip, &port);                                                          \
		if (IS_MAPPED(ctx->user_ip6))                                                      \
			ctx->user_ip6[3] = ip;                                                     \
		ctx->user_port = bpf_htons(port);                                                  \
		return PASS;                                                                       \
	}

NAME_PROGRAM(getsockname, own_name)
NAME_PROGRAM(getpeername, peer_name)

SEC("sockops") int ax_sockops(struct bpf_sock_ops *ctx)
{
	struct sock_state *state;
	struct bpf_sock *sk;
	/* most calls are none of these: they must cost nothing */
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] != BPF_TCP_CLOSE)
			return 1;
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ctx, 0); /* the listener's; the dialler's side counts */
		return 1;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		break;
	default:
		return 1;
	}
	sk = ctx->sk;
	if (!sk || !(state = owned(sk)))
		return 1;
	if (ctx->op == BPF_SOCK_OPS_STATE_CB) {
		closed(ctx, state);
	} else {
		serve(state, ctx->local_port, TCP, ctx->family == AF_INET6, bpf_get_socket_cookie(ctx));
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	}
	return 1;
}

SEC("cgroup_skb/ingress") int ax_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	/* connected sockets take only what their peer sends: the kernel has checked */
	if (!sk || sk->state == BPF_TCP_ESTABLISHED || !(sk = bpf_sk_fullsock(sk)))
		return PASS;
	if (sk->protocol == TCP && sk->state == BPF_TCP_LISTEN)
		return admit_syn(skb, bpf_sk_storage_get(&sockets, sk, 0, 0));
	if (sk->protocol == UDP)
		return admit_datagram(skb, bpf_sk_storage_get(&sockets, sk, 0, 0));
	return PASS;
}

char _license[] SEC("license") = "GPL";
