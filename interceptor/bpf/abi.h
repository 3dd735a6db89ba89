/* Layouts shared with Python (abi.py asserts the same sizes and offsets from this object's BTF).
 * Ports are in host order and addresses in network order, in every map. */
#pragma once
#include <linux/types.h>

#define APP_EMPTY 1u  /* sockets of this app are injected by the holder */
#define APP_HOLDER 2u /* the holder's cgroup: an app is known by its socket only */
#define APP_OWN_NETWORK 4u /* a pod: its addresses and ports are its own (own.h) */
#define APP_ENDED 8u  /* its number of a class may be another's by now: sockets that outlive it reach nobody */
#define APP_WAIT_SHIFT 16 /* above: how long its connect() waits for a listener, in tenths of a second */

/* cls: the number of its class in the low half, of the peer (class and address; 0: not known) in the high one */
struct app { __u32 id, cls, ip, flags; };

/* One side of a socket as the program under AppSwitch knows it. */
struct name { __u32 ip; __u16 port; __u8 scope; __u8 set; };
enum scope { SCOPE_ANY = 0, SCOPE_VIRTUAL = 1, SCOPE_LOOPBACK = 2 };

struct sock_state {
	struct app owner;
	struct name bound; /* what bind() asked for; set once the kernel agreed */
	struct name peer;  /* what getpeername() shows */
	struct name local; /* what getsockname() shows after connect() or accept() */
	__u32 target;      /* the app that was dialled; on an accepted socket, the one that dialled */
	__u32 service;     /* index of the service that was dialled */
	__u64 cookie;      /* of this socket, once it serves or has sent a datagram */
	__u64 start;       /* CLOCK_MONOTONIC nanoseconds of connect or accept */
	__u8 v6only;       /* IPV6_V6ONLY was asked for (and swallowed), or the address is IPv6 alone */
	__u8 dialling;     /* a connect() that policy let through is under way */
	__u16 real;        /* the port it really serves on, while it is counted in `ports` */
	__u8 counted;      /* where its connection was counted when it was opened: enum counted */
	__u8 own;          /* bound to the app's own address, in a row of its own (PORT_AT_OWN) */
	__u16 chosen;      /* a TCP socket's port of the kernel's choice, while it is in `ports` */
	__u64 wait_until;  /* like `start`: until then nobody hears that a connect() was refused */
	__u8 spare[16];
};

struct key { __u32 ip; __u16 port; __u8 protocol, pad; };
#define SERVICE_LIVE (1ull << 32)
#define SERVICE_PER_CLASS (1ull << 33)
#define SERVICE_PER_PEER (1ull << 34) /* its verdicts are by the number of the peer */
#define SERVICE_CAPACITY_SHIFT 40

enum group_kind { GROUP_NONE, GROUP_BALANCE, GROUP_REFUSE, GROUP_DIRECT };
enum policy { POLICY_RANDOM, POLICY_ROUND_ROBIN };
struct group {
	__u32 first, count;
	__u8 kind, policy;
	__u16 error;
	__u32 service;
	__u64 next;
	__u32 source_ip, tag; /* tag: of the key that leads here */
};

enum backend_kind { BACKEND_APP = 1, BACKEND_ADDRESS = 2 };
struct backend { __u32 target; __u16 port; __u8 kind, spare; __u32 alias, threshold; };

/* A port of an app: the real port behind it, and how many sockets listen there.  lasting: the port of
 * the pool that is given until the app ends; 0: the kernel chose it (bind to port 0), and it goes with
 * the last socket. */
struct port_key { __u32 app; __u16 port; __u8 protocol, v6; };
/* Values of `v6`: 1 IPv6 alone; or of sockets bound to the app's own IPv4 address by name.  They are
 * really bound to every address, and on one real port would bar 127.0.0.1, which natively they do not.
 * Or of a port of the pool that rests, by its real number (choose()). */
enum { PORT_AT_OWN = 2, PORT_RESTING };
struct port { __u16 real; __u8 scope, dual; __s32 listening; __u32 ip, lasting; __u64 cookie; };
#define PORT_DUAL 1 /* bits of `dual`: it serves IPv4 too */
#define PORT_OWN 2  /* of an app with a network of its own: dialled at `ip`, on the app's own port */
/* What an app has taken of what all share: ports of the pool, and room in the ring since `since`. */
struct usage { __u32 ports, told; __u64 since; };
#define APP_PORTS 4096
#define TOLD_REFUSALS 200 /* of an app each second, as many as the daemon logs */
#define TOLD 2000         /* listen() and close, with them */
struct real_key { __u16 port; __u8 protocol, pad; };
/* exposed: strangers may dial it (--expose), at the address `at` alone, where it is not 0 */
struct real { __u32 app, ip; __u16 port, exposed; __u32 at; };

struct dial_key { __u32 ip; __u16 port, local; };
struct dial { __u32 app, ip, to_ip; __u16 to_port, port; };
/* What a socket's datagrams from ip:port are shown as; reply: where an app's (then `cookie` is its id) go to. */
struct flow_key { __u64 cookie; __u32 ip; __u16 port, reply; };
struct flow { __u32 ip; __u16 port, asked; __u32 app; }; /* the names shown, and who is there: 0 no app;
							* asked: this socket chose them, by sending there */

/* An app with a network of its own: its address there, the node's as it is seen from there, and which
 * namespace it is (its cookie). */
struct pod { __u32 ip, node; __u64 netns; };
/* A dial that policy let through and that arrives in another network namespace, where no look-up finds
 * the dialler's socket.  from_port 0: datagrams, from whichever port.  netns: the dialler's. */
struct crossing_key { __u32 from, to; __u16 from_port, to_port, protocol, pad; };
struct crossing { __u32 app, target, asked_ip; __u16 asked_port, pad; __u64 netns; };

/* What became of the connections of an app to one backend of one service: ip:port is what it dialled,
 * target:backend_port where that led (an AppId or an address, and the real port). */
enum count_kind { COUNT_OUTSIDE, COUNT_APP = BACKEND_APP, COUNT_ADDRESS = BACKEND_ADDRESS, COUNT_LOOPBACK };
struct count_key { __u32 app, ip, target; __u16 port, backend_port; __u8 kind, pad[3]; };
struct count {
	__u64 opened, ended;
	__u64 failed; /* of those that ended: never established */
	__u64 refused, timed_out, unreachable, reset; /* why the kernel ended them */
	__u64 sent, received, nanoseconds;
	__u64 last_failure; /* CLOCK_MONOTONIC */
};
enum counted { COUNTED_NOT, COUNTED_ALONE, COUNTED_TOGETHER };

/* When a backend that is no app last failed: the next connect() goes elsewhere. */
struct failure_key { __u32 ip; __u16 port, pad; };
struct failure { __u64 time; __u32 consecutive, error; };

/* Connect-wait.  hole: the port where nobody ever listens, and whether any app waits (only then are
 * listeners kept by number).  A wait, by the dialler's own address and port. */
struct hole { __u32 port, active; };
struct wait_key { __u32 ip; __u16 port, pad; };
struct wait {
	__u32 app, cls, ip, target; /* target: the app that it was led to at last */
	__u16 port, real;
	__u8 astray;      /* times that it was not for the hole to help: it ends soon */
	__u8 established; /* `real` is final */
	__u8 tries, pad;  /* the socket's own TCP_SYNCNT */
	__u32 pause;      /* and TCP_RTO_MAX_MS, 0 where there is none */
};
struct listener_key { __u16 real, slot; };

enum event_kind { EVENT_LISTEN = 1, EVENT_UNLISTEN, EVENT_DENIED, EVENT_ADMISSION, EVENT_POOL, EVENT_FULL, EVENT_CROWDED };
/* EVENT_ADMISSION: ip:port is the stranger, `service` the address it dialled (network order),
 * `cookie` the sequence number of its SYN. */
struct event {
	__u32 kind, app, ip, service;
	__u16 port, real;
	__u8 protocol, scope;
	__u16 error;
	__u64 cookie, time;
};

_Static_assert(sizeof(struct app) == 16, "abi.APP");
_Static_assert(sizeof(struct sock_state) == 96, "abi.SOCK");
_Static_assert(sizeof(struct key) == 8, "abi.KEY");
_Static_assert(sizeof(struct group) == 32, "abi.GROUP");
_Static_assert(sizeof(struct backend) == 16, "abi.BACKEND");
_Static_assert(sizeof(struct port_key) == 8 && sizeof(struct port) == 24, "abi.PORT");
_Static_assert(sizeof(struct usage) == 16, "abi.USAGE");
_Static_assert(sizeof(struct pod) == 16, "abi.POD");
_Static_assert(sizeof(struct crossing_key) == 16 && sizeof(struct crossing) == 24, "abi.CROSSING");
_Static_assert(sizeof(struct event) == 40, "abi.EVENT");
