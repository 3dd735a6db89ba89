/* The kernel driver: every program, one line of translation each.  Read in this order: abi.h,
 * maps.h, decide.h, wait.h, connect.h, bind.h, cross.h, admit.h, tcp.h, own.h. */
#include "own.h"

#define IS_MAPPED(a) (!(a)[0] && !(a)[1] && (a)[2] == MAPPED)

/* A hook of each family by one function, which is told which (the verifier lets a program see the
 * fields of its own family only). */
#define PAIR(hook, context, function)                                                              \
	SEC("cgroup/" #hook "4") int ax_##hook##4(struct context *ctx) { return function(ctx, 0); } \
	SEC("cgroup/" #hook "6") int ax_##hook##6(struct context *ctx) { return function(ctx, 1); }

INLINE int handled(__u32 protocol)
{
	return protocol == TCP || protocol == UDP;
}

/* The address as one word: IPv4, also mapped, or LOOPBACK6 for ::1 and ::; false for other IPv6. */
INLINE int address(struct bpf_sock_addr *ctx, int v6, __u32 *ip)
{
	*ip = v6 ? ctx->user_ip6[3] : ctx->user_ip4;
	if (!v6 || IS_MAPPED(ctx->user_ip6))
		return 1;
	if (ctx->user_ip6[0] | ctx->user_ip6[1] | ctx->user_ip6[2] || (*ip && *ip != LOOPBACK6))
		return 0;
	*ip = LOOPBACK6;
	return 1;
}

INLINE int store(struct bpf_sock_addr *ctx, int v6, __u32 ip, __u16 port)
{
	asm volatile("" : "+r"(ctx)); /* no address of a field kept in a register: the verifier refuses it */
	if (v6)
		ctx->user_ip6[3] = ip;
	else
		ctx->user_ip4 = ip;
	ctx->user_port = bpf_htons(port);
	return PASS;
}

/* Other IPv6 is dialled as it is, but for link-local addresses (metadata services). */
INLINE int outside6(struct bpf_sock_addr *ctx)
{
	struct sock_state *state;
	if ((ctx->user_ip6[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000) || !(state = owned(ctx->sk)))
		return PASS;
	return IS_POD(state) ? PASS : fail(EACCES);
}

/* `--source-ip` of a vservice, towards backends outside: a sockaddr_in or sockaddr_in6. */
INLINE int bind_source(struct bpf_sock_addr *ctx, int v6, __u32 ip)
{
	__u32 source[7] = { v6 ? AF_INET6 : AF_INET, v6 ? 0 : ip, 0, 0, v6 ? MAPPED : 0, ip };
	return bpf_bind(ctx, source, v6 ? 28 : 16);
}

INLINE int connect(struct bpf_sock_addr *ctx, int v6)
{
	struct target to = { .protocol = ctx->protocol };
	struct sock_state *state;
	__u32 ip;
	int error;
	if (!handled(ctx->protocol))
		return PASS;
	if (ctx->user_family != (v6 ? AF_INET6 : AF_INET))
		return fail(EAFNOSUPPORT); /* the kernel looks at it after us */
	if (!address(ctx, v6, &ip)) {
		/* an earlier dial of this socket neither admits nor names this one */
		if ((state = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0)))
			state->dialling = state->target = state->peer.set = state->local.set = state->wait_until = 0;
		return outside6(ctx);
	}
	if (!(state = owned(ctx->sk)))
		return PASS;
	if (state->owner.flags & APP_ENDED)
		return fail(EACCES);
	if (IS_POD(state) && IS_POD_ONLY(ip)) {
		state->dialling = state->target = state->peer.set = 0;
		return PASS;
	}
	if (v6 && state->v6only && ip != LOOPBACK6)
		return fail(ENETUNREACH); /* a mapped address */
	error = dial(ctx, state, ip, bpf_ntohs(ctx->user_port), &to);
	if (error)
		return fail(error);
	if (to.source && !to.app && bind_source(ctx, v6, to.source))
		return fail(EADDRNOTAVAIL);
	return store(ctx, v6, to.ip, to.port);
}
PAIR(connect, bpf_sock_addr, connect)

/* IPv4-mapped destinations of an AF_INET6 socket come through sendmsg4. */
INLINE int sendmsg(struct bpf_sock_addr *ctx, int v6)
{
	struct target to = { .protocol = UDP };
	struct sock_state *state;
	__u32 ip;
	int error;
	if (ctx->protocol != UDP)
		return PASS;
	if (!address(ctx, v6, &ip))
		return outside6(ctx);
	if (!(state = owned(ctx->sk)))
		return PASS;
	if (state->owner.flags & APP_ENDED)
		return fail(EACCES);
	if (IS_POD(state) && IS_POD_ONLY(ip))
		return PASS;
	/* an AF_INET6 socket that is connected to a mapped address sends through here, to the address
	 * that connect() chose */
	if (!v6 && ctx->sk->family == AF_INET6 && ctx->sk->state == BPF_TCP_ESTABLISHED && ip == ctx->sk->dst_ip4 &&
	    ctx->user_port == ctx->sk->dst_port)
		return PASS;
	if (!v6 && state->v6only)
		return fail(ENETUNREACH);
	/* a port of the kernel's choice, which a disconnected socket may have changed: answers may
	 * come from anywhere in the mesh, so it is in the table like any other */
	if (!IS_POD(state) && !(state->bound.set && state->bound.port) && state->real != ctx->sk->src_port) {
		unserve(state, UDP);
		serve(state, ctx->sk->src_port, UDP, ctx->sk->family == AF_INET6, bpf_get_socket_cookie(ctx));
	}
	error = send_to(ctx, state, ip, bpf_ntohs(ctx->user_port), &to);
	return error ? fail(error) : store(ctx, v6, to.ip, to.port);
}
PAIR(sendmsg, bpf_sock_addr, sendmsg)

/* The sender's name as the app knows it. */
INLINE int recvmsg(struct bpf_sock_addr *ctx, int v6)
{
	struct flow_key key = { .cookie = bpf_get_socket_cookie(ctx), .port = bpf_ntohs(ctx->user_port) };
	struct flow *flow;
	__u32 ip;
	if (!address(ctx, v6, &ip))
		return PASS;
	key.ip = ip;
	flow = bpf_map_lookup_elem(&flows, &key);
	return flow ? store(ctx, v6, flow->ip, flow->port) : PASS;
}
PAIR(recvmsg, bpf_sock_addr, recvmsg)

/* Whether the app's own address and all of them, which have real ports of their own, are in each
 * other's way: the kernel would say so, were they one. */
NOINLINE int bars(struct bpf_sock_addr *ctx, struct sock_state *state, __u16 port, int own)
{
	struct port_key key = { .app = state->owner.id, .port = port, .protocol = ctx->protocol, .v6 = own ? 0 : PORT_AT_OWN };
	struct port *other = bpf_map_lookup_elem(&ports, &key);
	int shared = 0;
	if (!other || other->listening <= 0 || other->scope == SCOPE_LOOPBACK)
		return 0;
	bpf_getsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof shared);
	if (!shared && ctx->protocol == UDP)
		bpf_getsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &shared, sizeof shared);
	return !shared;
}

/* Whether a socket at the app's own address gets a row of its own; an exposed port is one for all, and so
 * is a number that the kernel chose. */
NOINLINE int is_at_own(struct app *app, struct name *asked, __u8 protocol)
{
	struct port_key key = { .app = app->id, .port = asked->port, .protocol = protocol };
	struct port *found;
	if (!asked->port || asked->ip != app->ip)
		return 0;
	found = bpf_map_lookup_elem(&ports, &key);
	return !found || (found->lasting && !(protocol == TCP && is_exposed(found->real, 0)));
}

INLINE int bind(struct bpf_sock_addr *ctx, int v6)
{
	struct name asked = { .port = bpf_ntohs(ctx->user_port) };
	struct sock_state *state;
	int real = 0, plain = 1, only, own;
	if (!handled(ctx->protocol) || !(state = owned(ctx->sk)))
		return PASS;
	if (state->owner.flags & APP_ENDED)
		return fail(EACCES);
	if (ctx->sk->src_port)
		return fail(EINVAL); /* bound already: the names stay */
	only = v6 && state->v6only;
	if (!v6 || ctx->user_ip6[0] | ctx->user_ip6[1] | ctx->user_ip6[2] | ctx->user_ip6[3]) {
		plain = address(ctx, v6, &asked.ip);
		if (only && plain && asked.ip != LOOPBACK6)
			return fail(EINVAL); /* a mapped address */
		if (!plain || asked.ip == LOOPBACK6) {
			asked.scope = plain ? SCOPE_LOOPBACK : SCOPE_VIRTUAL;
			asked.ip = plain = 0;
			only = 1;
		} else if (asked.ip) {
			asked.scope = (asked.ip & 0xff) == 127 ? SCOPE_LOOPBACK : SCOPE_VIRTUAL;
		}
	}
	own = plain && is_at_own(&state->owner, &asked, ctx->protocol);
	if (asked.port && (own || (asked.scope == SCOPE_ANY && !only)) && bars(ctx, state, asked.port, own))
		return fail(EADDRINUSE);
	if (asked.port && !(real = real_port(&state->owner, asked.port, ctx->protocol, own ? PORT_AT_OWN : only)))
		return fail(EADDRINUSE);
	state->v6only = only;
	state->own = own;
	state->bound = asked; /* `set` once the kernel agreed */
	if (plain && asked.ip == state->owner.ip) {
		state->bound.set = !real; /* IP_BIND_ADDRESS_NO_PORT: the kernel will not tell */
		return store(ctx, v6, 0, real); /* the app's own address is nobody's here */
	}
	ctx->user_port = bpf_htons(real);
	return PASS;
}
PAIR(bind, bpf_sock_addr, bind)

INLINE int bound(struct bpf_sock *sk, int v6)
{
	struct sock_state *state = owned(sk);
	if (!state)
		return PASS;
	state->bound.set = 1;
	if (sk->protocol == UDP)
		serve(state, sk->src_port, UDP, v6, bpf_get_socket_cookie(sk));
	else if (!state->bound.port)
		choose(state, sk->src_port);
	return PASS;
}
PAIR(post_bind, bpf_sock, bound)

SEC("cgroup/sock_release") int ax_sock_release(struct bpf_sock *sk)
{
	struct sock_state *state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (state && sk->protocol == UDP)
		unserve(state, UDP);
	else if (sk->state == BPF_TCP_LISTEN)
		gone(bpf_get_socket_cookie(sk));
	if (state && state->chosen)
		unchoose(state);
	return PASS;
}

/* Protocols that no hook would see are not there: MPTCP, whose subflows pass none, SCTP, UDP-Lite. */
SEC("cgroup/sock_create") int ax_sock_create(struct bpf_sock *sk)
{
	int known = handled(sk->protocol) || sk->protocol == ICMP || sk->protocol == ICMP6;
	return known || sk->type == SOCK_RAW ? PASS : fail(EPROTONOSUPPORT);
}

/* Options by which a socket of the node's, injected, would do to the node's network what its user could
 * not do in the namespace that the app is in.  The kernel asks for rights in the *node's* namespace, which
 * root in a container may have some of. */
INLINE int is_the_nodes(int level, int name)
{
	if (level == SOL_SOCKET)
		return name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX || name == SO_MARK || name == SO_SNDBUFFORCE ||
		       name == SO_RCVBUFFORCE;
	if (level == TCP)
		return name == TCP_REPAIR;
	if (level == SOL_IP)
		return name == IP_TRANSPARENT || name == IP_UNICAST_IF || name == IP_ADD_MEMBERSHIP ||
		       name == IP_ADD_SOURCE_MEMBERSHIP || name == MCAST_JOIN_GROUP || name == MCAST_JOIN_SOURCE_GROUP ||
		       name >= IPT_SO_FIRST;
	return level == SOL_IPV6 && (name == IPV6_TRANSPARENT || name == IPV6_UNICAST_IF || name == IPV6_JOIN_GROUP ||
				     name == IPV6_JOIN_ANYCAST || name == MCAST_JOIN_GROUP ||
				     name == MCAST_JOIN_SOURCE_GROUP || name == IPT_SO_FIRST || name == IPT_SO_FIRST + 1);
}

/* [::] must answer for the app's IPv4 address too: V6ONLY is remembered, not done. */
SEC("cgroup/setsockopt") int ax_setsockopt(struct bpf_sockopt *ctx)
{
	int *value = ctx->optval;
	struct sock_state *state;
	if (ctx->optlen > 4096)
		ctx->optlen = 0; /* we are shown a page of it; this says that the whole is unchanged */
	if (is_the_nodes(ctx->level, ctx->optname) && (state = owned(ctx->sk)) && state->owner.flags & APP_EMPTY)
		return fail(EPERM);
	if (ctx->level != SOL_IPV6 || ctx->optname != IPV6_V6ONLY)
		return 1;
	/* a bound socket's is an error, as is an IPv4 one's */
	if (ctx->sk->family != AF_INET6 || ctx->sk->src_port || (void *)(value + 1) > ctx->optval_end)
		return 1;
	if (!(state = owned(ctx->sk)))
		return 1;
	state->v6only = *value != 0;
	ctx->optlen = -1;
	return 1;
}

SEC("cgroup/getsockopt") int ax_getsockopt(struct bpf_sockopt *ctx)
{
	int *value = ctx->optval;
	struct sock_state *state;
	if (ctx->optlen > 4096)
		ctx->optlen = 0;
	if (ctx->level != SOL_IPV6 || ctx->optname != IPV6_V6ONLY || ctx->sk->family != AF_INET6 || (void *)(value + 1) > ctx->optval_end)
		return 1;
	if (!ctx->retval && (state = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0)) && state->v6only)
		*value = 1;
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
		if (state->local.ip && *ip) /* 0: disconnected since, which no hook tells */
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
INLINE struct sock_state *known_socket(struct bpf_sock *sk, int v6, __u16 local)
{
	struct sock_state *state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	struct dial_key key = { .ip = v6 ? sk->dst_ip6[3] : sk->dst_ip4, .port = bpf_ntohs(sk->dst_port), .local = local };
	struct dial *dial;
	if (state || sk->protocol != TCP || !(dial = bpf_map_lookup_elem(&dials, &key)))
		return state;
	state = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return 0;
	state->target = dial->app;
	state->peer = (struct name){ .ip = dial->ip, .port = dial->port, .set = 1 };
	state->local = (struct name){ .ip = dial->to_ip, .port = dial->to_port, .set = 1 };
	return state;
}

INLINE int name(struct bpf_sock_addr *ctx, int v6, struct sock_state *state, void (*which)(struct sock_state *, __u32 *, __u16 *))
{
	__u32 ip = v6 ? ctx->user_ip6[3] : ctx->user_ip4;
	__u16 port = bpf_ntohs(ctx->user_port);
	if (!state)
		return PASS;
	which(state, &ip, &port);
	return store(ctx, v6, !v6 || IS_MAPPED(ctx->user_ip6) ? ip : ctx->user_ip6[3], port);
}

INLINE int getsockname(struct bpf_sock_addr *ctx, int v6)
{
	return name(ctx, v6, known_socket(ctx->sk, v6, bpf_ntohs(ctx->user_port)), own_name);
}

/* Whether an accepted socket of ours, which nobody knows (any more), has a peer of the node's own: its
 * dial was forgotten, or the connection was reset before accept(), which takes the port from the socket. */
INLINE int is_nameless(struct bpf_sock_addr *ctx, int v6)
{
	struct app *app = bpf_get_local_storage(&apps, 0);
	__u32 ip;
	return app->id && !(app->flags & APP_OWN_NETWORK) && ctx->protocol == TCP && address(ctx, v6, &ip) &&
	       IS_LOOPBACK(ip) && !is_exposed(ctx->sk->src_port, 0);
}

INLINE int getpeername(struct bpf_sock_addr *ctx, int v6)
{
	struct sock_state *state = known_socket(ctx->sk, v6, ctx->sk->src_port);
	/* it must not pass for the app's own loopback, which servers trust */
	if (!state && is_nameless(ctx, v6))
		return store(ctx, v6, 0, bpf_ntohs(ctx->user_port));
	return name(ctx, v6, state, peer_name);
}
PAIR(getsockname, bpf_sock_addr, getsockname)
PAIR(getpeername, bpf_sock_addr, getpeername)

SEC("sockops") int ax_sockops(struct bpf_sock_ops *ctx)
{
	struct sock_state *state;
	struct bpf_sock *sk;
	/* most calls are none of these: they must cost nothing */
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		if ((sk = ctx->sk) && (state = bpf_sk_storage_get(&sockets, sk, 0, 0))) {
			opened(ctx, state);
			if (CROSSES(ctx->remote_ip4))
				note_crossing(ctx, state);
		}
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (ctx->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_RTO_CB_FLAG) {
			reached(ctx);
			attend_wait(ctx);
		}
		return 1;
	case BPF_SOCK_OPS_TIMEOUT_INIT:
		attend_wait(ctx);
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
		closed(ctx, sk, state);
		if (CROSSES(ctx->remote_ip4))
			forget_crossing(ctx);
	} else {
		keep_listener(ctx);
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
	if (sk->state == BPF_TCP_SYN_SENT) /* no state of a UDP socket */
		return answer_dialler(skb, sk);
	if (sk->protocol == TCP && sk->state == BPF_TCP_LISTEN)
		return admit_syn(skb, bpf_sk_storage_get(&sockets, sk, 0, 0));
	if (sk->protocol == UDP)
		return admit_datagram(skb, bpf_sk_storage_get(&sockets, sk, 0, 0));
	return PASS;
}

#define OWN_PAIR(hook, which, context, function)                                                         \
	SEC("cgroup/" #hook "4") int ax_own_##which##4(struct context *ctx) { return function(ctx, 0); } \
	SEC("cgroup/" #hook "6") int ax_own_##which##6(struct context *ctx) { return function(ctx, 1); }

/* A pod's programs; what decides and what names its datagrams' senders it shares with the others. */
INLINE int own_peer(struct bpf_sock_addr *ctx, int v6)
{
	struct sock_state *state = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);
	__u16 port = bpf_ntohs(ctx->user_port);
	__u32 ip = 0;
	if (!state || !state->peer.set || (v6 && !IS_MAPPED(ctx->user_ip6)))
		return PASS;
	peer_name(state, &ip, &port);
	return store(ctx, v6, ip, port);
}
OWN_PAIR(getpeername, peer, bpf_sock_addr, own_peer)

/* A datagram socket serves where bind() named a port: listen() says so for TCP. */
INLINE int own_bind(struct bpf_sock_addr *ctx, int v6)
{
	struct sock_state *state;
	if (ctx->protocol == UDP && ctx->user_port && !ctx->sk->src_port && (state = owned(ctx->sk)))
		state->bound.port = bpf_ntohs(ctx->user_port);
	return PASS;
}
OWN_PAIR(bind, bind, bpf_sock_addr, own_bind)

INLINE int own_bound(struct bpf_sock *sk, int v6)
{
	struct sock_state *state;
	__u32 ip = v6 ? sk->src_ip6[3] : sk->src_ip4;
	if (sk->protocol != UDP || !(state = bpf_sk_storage_get(&sockets, sk, 0, 0)) || state->bound.port != sk->src_port)
		return PASS;
	if (v6 && !IS_MAPPED(sk->src_ip6) && (sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2] | sk->src_ip6[3]))
		return PASS;
	own_serve(&state->owner, ip, sk->src_port, UDP, bpf_get_socket_cookie(sk));
	return PASS;
}
OWN_PAIR(post_bind, bound, bpf_sock, own_bound)

SEC("cgroup/sock_release") int ax_own_release(struct bpf_sock *sk)
{
	if (sk->protocol == UDP || sk->state == BPF_TCP_LISTEN || sk->state == BPF_TCP_CLOSE)
		gone(bpf_get_socket_cookie(sk));
	return PASS;
}

SEC("sockops") int ax_own_sockops(struct bpf_sock_ops *ctx)
{
	struct sock_state *state;
	struct bpf_sock *sk;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_STATE_CB:
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (ctx->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_RTO_CB_FLAG)
			reached(ctx);
		return 1;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ctx, 0); /* the listener's */
		return 1;
	default:
		return 1;
	}
	if (ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] != BPF_TCP_CLOSE)
		return 1;
	if (!(sk = ctx->sk) || !(state = owned(sk)))
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		opened(ctx, state);
		note_crossing(ctx, state);
	} else if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB) {
		own_listen(ctx, state);
	} else if (ctx->args[0] == BPF_TCP_LISTEN) {
		gone(bpf_get_socket_cookie(ctx));
	} else {
		closed(ctx, sk, state);
		forget_crossing(ctx);
	}
	return 1;
}

SEC("cgroup_skb/ingress") int ax_own_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	if (!sk || sk->state == BPF_TCP_ESTABLISHED || !(sk = bpf_sk_fullsock(sk)))
		return PASS;
	return sk->protocol == TCP && sk->state == BPF_TCP_LISTEN ? own_admit(skb) : PASS;
}

/* The only program that is not an app's but the node's: attached while some app may wait. */
SEC("sk_lookup") int ax_lookup(struct bpf_sk_lookup *ctx)
{
	struct hole *hole = the_hole();
	if (hole && ctx->local_port == hole->port && ctx->protocol == TCP && ctx->local_ip4 == LOOPBACK)
		look_up(ctx);
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
