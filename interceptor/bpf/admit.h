/* A segment or datagram reaches a socket of an app: is its sender one that policy let through? */
#pragma once
#include "cross.h"

struct ip4 { __u8 version_ihl, tos; __u16 length, id, fragment; __u8 ttl, protocol; __u16 check; __u32 from, to; };
struct ip6 { __u32 flow; __u16 length; __u8 next, hops; __u32 from[4], to[4]; };
struct transport { __u16 from, to; __u32 sequence, acknowledge; __u8 offset, flags, rest[6]; };
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
#define ETH_IPV4 bpf_htons(0x0800)
#define ETH_IPV6 bpf_htons(0x86dd)
/* The ends of a packet by its sender's tuple; over IPv6 an app only ever reaches its own ::1. */
#define FROM(tuple, size) ((size) == sizeof (tuple).ipv4 ? (tuple).ipv4.daddr : LOOPBACK6)
#define IS_LOOPBACK6(a) (!((a)[0] | (a)[1] | (a)[2]) && (a)[3] == LOOPBACK6)
#define TO(tuple, size) ((size) == sizeof (tuple).ipv4 ? (tuple).ipv4.saddr : LOOPBACK6)

/* The addresses of a packet as the tuple under which its *sender's* socket is found, or 0 where
 * it is not plain: options, fragments and extension headers are never admitted (fail closed). */
INLINE __u32 sender_tuple(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, struct transport *transport, __u32 size)
{
	struct ip4 ip4;
	struct ip6 ip6;
	if (skb->protocol == ETH_IPV4) {
		if (bpf_skb_load_bytes(skb, 0, &ip4, sizeof ip4) || ip4.version_ihl != 0x45 ||
		    (ip4.fragment & bpf_htons(0x3fff)) || bpf_skb_load_bytes(skb, sizeof ip4, transport, size))
			return 0;
		tuple->ipv4.saddr = ip4.to;
		tuple->ipv4.daddr = ip4.from;
		tuple->ipv4.sport = transport->to;
		tuple->ipv4.dport = transport->from;
		return sizeof tuple->ipv4;
	}
	if (skb->protocol != ETH_IPV6 || bpf_skb_load_bytes(skb, 0, &ip6, sizeof ip6) ||
	    (ip6.next != TCP && ip6.next != UDP) || bpf_skb_load_bytes(skb, sizeof ip6, transport, size))
		return 0;
	__builtin_memcpy(tuple->ipv6.saddr, ip6.to, 16);
	__builtin_memcpy(tuple->ipv6.daddr, ip6.from, 16);
	tuple->ipv6.sport = transport->to;
	tuple->ipv6.dport = transport->from;
	return sizeof tuple->ipv6;
}

/* Drops the packet.  The event has what a RST needs: both ends and the SYN's sequence number. */
INLINE int refuse_stranger(__u32 app, struct bpf_sock_tuple *tuple, __u32 size, __u8 protocol, __u32 sequence)
{
	struct event event = { .kind = EVENT_ADMISSION, .app = app, .protocol = protocol,
			       .error = EACCES, .cookie = bpf_ntohl(sequence) };
	if (size == sizeof tuple->ipv4) {
		event.ip = tuple->ipv4.daddr;
		event.port = bpf_ntohs(tuple->ipv4.dport);
		event.service = tuple->ipv4.saddr;
		event.real = bpf_ntohs(tuple->ipv4.sport);
	}
	tell(&event);
	return FAIL;
}

/* A segment at a socket in SYN_SENT: a refusal is not heard while its connect() waits. */
INLINE int answer_dialler(struct __sk_buff *skb, struct bpf_sock *sk)
{
	struct bpf_sock_tuple tuple = {};
	struct transport tcp = {};
	struct sock_state *state;
	struct wait *wait;
	if (!may_wait_here() || !(state = bpf_sk_storage_get(&sockets, sk, 0, 0)) ||
	    state->wait_until <= bpf_ktime_get_coarse_ns() || skb->protocol != ETH_IPV4 ||
	    !sender_tuple(skb, &tuple, &tcp, sizeof tcp))
		return PASS;
	if ((tcp.flags & (SYN | ACK)) == SYN)
		return FAIL; /* its own, where its port is the one it dials: it would be connected with itself */
	if (!(tcp.flags & RST))
		return PASS;
	struct wait_key key = { .ip = tuple.ipv4.saddr, .port = bpf_ntohs(tcp.to) };
	wait = bpf_map_lookup_elem(&waits, &key);
	return wait && wait->astray < ASTRAY ? FAIL : PASS;
}

/* Whether the dialler has waited for what this listener serves: its SYN was led here (wait.h). */
INLINE int was_led(struct sock_state *dialler, __u32 app, struct bpf_sock_tuple *tuple)
{
	struct wait_key key = { .ip = tuple->ipv4.daddr, .port = bpf_ntohs(tuple->ipv4.dport) };
	struct hole *hole = the_hole();
	struct wait *wait;
	if (!dialler->wait_until || !hole || tuple->ipv4.sport != bpf_htons(hole->port))
		return 0;
	wait = bpf_map_lookup_elem(&waits, &key);
	if (!wait || !app || wait->target != app)
		return 0;
	dialler->target = app;
	return 1;
}

/* A SYN at a listener: its dialler is the socket at the other end, in SYN_SENT, and the dial
 * that policy let through must have been to this app. */
INLINE int admit_syn(struct __sk_buff *skb, struct sock_state *listener)
{
	struct bpf_sock_tuple tuple = {};
	struct transport tcp = {};
	struct sock_state *dialler = 0;
	struct bpf_sock *sk;
	int admitted = 0, exposed;
	__u32 size = sender_tuple(skb, &tuple, &tcp, sizeof tcp);
	if (!size)
		return refuse_stranger(listener ? listener->owner.id : 0, &tuple, 0, TCP, 0);
	if (!(tcp.flags & SYN) || (tcp.flags & ACK))
		return PASS; /* of a handshake whose SYN was admitted, or nothing's */
	sk = bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (sk && sk->state == BPF_TCP_SYN_SENT)
		dialler = bpf_sk_storage_get(&sockets, sk, 0, 0);
	struct dial_key key = { .ip = FROM(tuple, size), .port = bpf_ntohs(tcp.from), .local = bpf_ntohs(tcp.to) };
	if (listener && dialler && dialler->dialling &&
	    (dialler->target == listener->owner.id || was_led(dialler, listener->owner.id, &tuple))) {
		struct dial dial = { .app = dialler->owner.id, .ip = dialler->local.ip,
				     .to_ip = dialler->peer.ip, .to_port = dialler->peer.port, .port = key.port };
		if (dialler->bound.set && dialler->bound.port)
			dial.port = dialler->bound.port;
		bpf_map_update_elem(&dials, &key, &dial, BPF_ANY);
		admitted = 1;
	}
	if (sk)
		bpf_sk_release(sk);
	if (admitted)
		return PASS;
	if (listener && size == sizeof tuple.ipv4 && admit_crossing(listener->owner.id, &tuple))
		return PASS;
	exposed = is_exposed(key.local, TO(tuple, size));
	if (exposed)
		bpf_map_delete_elem(&dials, &key); /* an app's that had this tuple before: the stranger is not that app */
	return exposed ? PASS : refuse_stranger(listener ? listener->owner.id : 0, &tuple, size, TCP, tcp.sequence);
}

/* Whether the sender's last word on this destination was a decision for this app.  *asked: the address
 * that it meant. */
INLINE int was_decided(struct bpf_sock *sk, struct sock_state *sender, __u32 app, __u32 ip, __u16 port, __u32 *asked)
{
	struct flow_key key = { .cookie = sender->cookie, .ip = ip, .port = port };
	struct flow *way = bpf_map_lookup_elem(&flows, &key);
	*asked = way ? way->ip : sender->peer.ip;
	return way ? way->app == app : sk->state == BPF_TCP_ESTABLISHED && sender->target == app;
}

/* A datagram at a bound port: from an app that policy let through to this one, or from outside as
 * an answer to something that this socket sent.  At a port of the kernel's choice, a client's, only
 * the names are seen to: who may send there is as native. */
INLINE int admit_datagram(struct __sk_buff *skb, struct sock_state *state)
{
	struct bpf_sock_tuple tuple = {};
	struct transport udp = {};
	struct sock_state *sender = 0;
	struct flow *asked;
	struct bpf_sock *sk;
	__u32 size, meant;
	int admitted = 0;
	int served = state && state->bound.set && state->bound.port;
	if (!state || (!served && !state->real))
		return PASS;
	size = sender_tuple(skb, &tuple, &udp, 8);
	if (size == sizeof tuple.ipv6 && !IS_LOOPBACK6(tuple.ipv6.saddr))
		size = 0; /* flows and names know no other address of IPv6 than ::1 */
	if (!size)
		return served ? refuse_stranger(state->owner.id, &tuple, 0, UDP, 0) : PASS;
	struct flow_key key = { .cookie = bpf_get_socket_cookie(skb), .ip = FROM(tuple, size), .port = bpf_ntohs(udp.from) };
	asked = bpf_map_lookup_elem(&flows, &key);
	if (!served && asked && asked->asked)
		return PASS; /* an answer to a client: no more to know */
	sk = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (sk)
		sender = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!sender || !sender->owner.id) {
		admitted = (asked && !asked->app) || find_crossing(state->owner.id, FROM(tuple, size), 0, TO(tuple, size), bpf_ntohs(udp.to), UDP);
	} else if (asked && asked->asked && asked->app == sender->owner.id) {
		admitted = 1; /* an answer: it shows the address that was asked */
	} else if (was_decided(sk, sender, state->owner.id, TO(tuple, size), bpf_ntohs(udp.to), &meant)) {
		struct flow shown = { .ip = sender->owner.ip, .port = key.port, .app = sender->owner.id };
		struct flow real = { .ip = key.ip, .port = key.port, .app = sender->owner.id };
		if (sender->bound.set && sender->bound.port)
			shown.port = sender->bound.port;
		if (IS_LOOPBACK(meant))
			shown.ip = key.ip; /* the app's own loopback */
		/* the sender's port may have been another app's a moment ago: hence at each datagram */
		remember_flow(&key, &shown);
		key.cookie = state->owner.id;
		key.ip = shown.ip;
		key.port = shown.port;
		key.reply = 1;
		remember_flow(&key, &real);
		admitted = 1;
	}
	if (sk)
		bpf_sk_release(sk);
	return admitted || !served ? PASS : refuse_stranger(state->owner.id, &tuple, size, UDP, 0);
}
