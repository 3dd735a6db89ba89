/* The few kernel helpers we call (numbers from linux/bpf.h) and the usual small macros. */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define INLINE static __attribute__((always_inline)) inline
#define NOINLINE static __attribute__((noinline))
/* Not static: the verifier checks it once, not at each call; its pointers may then be NULL. */
#define CHECKED_ONCE __attribute__((noinline))
#define HELPER(type, name, ...) static type (*bpf_##name)(__VA_ARGS__) = (void *)BPF_FUNC_##name

HELPER(void *, map_lookup_elem, void *map, const void *key);
HELPER(long, map_update_elem, void *map, const void *key, const void *value, __u64 flags);
HELPER(long, map_delete_elem, void *map, const void *key);
HELPER(long, map_pop_elem, void *map, void *value);
HELPER(long, map_push_elem, void *map, const void *value, __u64 flags);
HELPER(void *, get_local_storage, void *map, __u64 flags);
HELPER(void *, sk_storage_get, void *map, void *sk, void *value, __u64 flags);
HELPER(__u64, get_socket_cookie, void *ctx);
HELPER(__u64, get_netns_cookie, void *ctx);
HELPER(__u64, ktime_get_coarse_ns, void); /* a tick's resolution, and no clock read */
HELPER(__u32, get_prandom_u32, void);
HELPER(long, bind, struct bpf_sock_addr *ctx, void *address, int length);
HELPER(long, set_retval, int retval);
HELPER(long, sock_ops_cb_flags_set, struct bpf_sock_ops *ctx, int flags);
HELPER(struct bpf_sock *, sk_fullsock, void *sk);
HELPER(struct sock *, skc_to_tcp_sock, void *sk);
HELPER(long, skb_load_bytes, const void *skb, __u32 offset, void *to, __u32 length);
HELPER(struct bpf_sock *, sk_lookup_tcp, void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags);
HELPER(struct bpf_sock *, sk_lookup_udp, void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags);
HELPER(long, sk_release, void *sk);
HELPER(long, sk_assign, void *ctx, void *sk, __u64 flags);
HELPER(long, sock_hash_update, struct bpf_sock_ops *ctx, void *map, void *key, __u64 flags);
HELPER(long, setsockopt, void *ctx, int level, int option, void *value, int length);
HELPER(long, getsockopt, void *ctx, int level, int option, void *value, int length);
HELPER(long, loop, __u32 times, void *callback, void *context, __u64 flags);
HELPER(void *, ringbuf_reserve, void *ringbuf, __u64 size, __u64 flags);
HELPER(void, ringbuf_submit, void *data, __u64 flags);

#define bpf_ntohs(x) __builtin_bswap16(x) /* both targets are little-endian */
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_htonl(x) __builtin_bswap32(x)
#define LOOPBACK bpf_htonl(0x7f000001)
#define LOOPBACK6 bpf_htonl(1) /* ::1, where an address is one word */
#define MAPPED bpf_htonl(0xffff)

#define TCP 6
#define UDP 17
#define ICMP 1
#define ICMP6 58
#define AF_INET 2
#define AF_INET6 10
#define SOCK_RAW 3
#define SOL_IP 0
#define SOL_SOCKET 1
#define SOL_IPV6 41
#define SO_REUSEADDR 2
#define SO_REUSEPORT 15
#define SO_BINDTODEVICE 25
#define SO_BINDTOIFINDEX 62
#define SO_MARK 36
#define SO_SNDBUFFORCE 32
#define SO_RCVBUFFORCE 33
#define TCP_REPAIR 19
#define IP_TRANSPARENT 19
#define IP_UNICAST_IF 50
#define IP_ADD_MEMBERSHIP 35
#define IP_ADD_SOURCE_MEMBERSHIP 39
#define MCAST_JOIN_GROUP 42
#define MCAST_JOIN_SOURCE_GROUP 46
#define IPT_SO_FIRST 64 /* firewall tables, and others' of their kind above */
#define IPV6_V6ONLY 26
#define IPV6_JOIN_GROUP 20
#define IPV6_JOIN_ANYCAST 27
#define IPV6_TRANSPARENT 75
#define IPV6_UNICAST_IF 76
#define EPERM 1
#define EACCES 13
#define EINVAL 22
#define EPROTONOSUPPORT 93
#define EAFNOSUPPORT 97
#define EADDRINUSE 98
#define EADDRNOTAVAIL 99
#define EPIPE 32
#define ENETUNREACH 101
#define ECONNRESET 104
#define ETIMEDOUT 110
#define ECONNREFUSED 111

enum { FAIL = 0, PASS = 1 }; /* what a cgroup program returns */

/* Ends the system call with this errno: return it from the program. */
INLINE int fail(int error)
{
	bpf_set_retval(-(error & 4095)); /* newer verifiers ask for proof that it is an errno */
	return FAIL;
}
