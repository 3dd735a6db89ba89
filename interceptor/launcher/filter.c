/* The only system call that is trapped: socket() for TCP or UDP, in an empty namespace, where
 * the holder injects a socket of the node's.  Every other kind is the namespace's own.  And what ioctl()
 * would do to the node's network through such a socket is refused. */
#include "ax.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#define COMPAT_SOCKETCALL 102 /* i386 has both: a 32-bit program cannot be served, and is told so */
#define COMPAT_SOCKET 359
#define COMPAT_IOCTL 54
#define X32_BIT 0x40000000
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#define COMPAT_SOCKETCALL 102
#define COMPAT_SOCKET 281
#define COMPAT_IOCTL 54
#define X32_BIT 0xffffffff /* no such thing: no call has this number */
#endif
#define MPTCP 262 /* Go listens with it by default, and falls back when it is not supported */

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
/* The low half of a 64-bit argument: both architectures are little-endian, and the kernel reads
 * socket()'s arguments as int. */
#define IF(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)
#define ERROR(number) RETURN(SECCOMP_RET_ERRNO | (number))

static struct sock_filter program[] = {
	LOAD(arch),
	IF(NATIVE, 5, 0),
	LOAD(nr),
	IF(COMPAT_SOCKETCALL, 1, 0),
	IF(COMPAT_SOCKET, 0, 1),
	ERROR(ENOSYS),
	RETURN(SECCOMP_RET_ALLOW),
	LOAD(nr),
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 16, 0),
	IF(SYS_socket, 0, 12),
	LOAD(args[0]),
	IF(AF_INET, 1, 0),
	IF(AF_INET6, 0, 9),
	LOAD(args[2]),
	IF(MPTCP, 8, 0),
	IF(0, 2, 0),
	IF(IPPROTO_TCP, 1, 0),
	IF(IPPROTO_UDP, 0, 4),
	LOAD(args[1]),
	BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf), /* without SOCK_CLOEXEC and SOCK_NONBLOCK */
	IF(SOCK_STREAM, 3, 0),
	IF(SOCK_DGRAM, 2, 0),
	RETURN(SECCOMP_RET_ALLOW),
	ERROR(EPROTONOSUPPORT),
	RETURN(SECCOMP_RET_USER_NOTIF),
	ERROR(ENOSYS),
};

/* Requests of sockets from the first that sets up a network to the wireless extensions are refused, to root
 * too, who means the namespace that it is in; but for the questions that usual programs ask. */
#define FIRST SIOCADDRT
#define PAST (0x8c00 - FIRST)
#define BIT(request) (1u << ((request) - FIRST) % 32)
#define QUESTIONS                                                                                           \
	(BIT(SIOCGIFNAME) | BIT(SIOCGIFCONF) | BIT(SIOCGIFFLAGS) | BIT(SIOCGIFADDR) | BIT(SIOCGIFDSTADDR) | \
	 BIT(SIOCGIFBRDADDR) | BIT(SIOCGIFNETMASK) | BIT(SIOCGIFMETRIC) | BIT(SIOCGIFMEM) |                 \
	 BIT(SIOCGIFMTU) | BIT(SIOCGIFENCAP) | BIT(SIOCGIFHWADDR))
#define MORE_QUESTIONS (BIT(SIOCGIFINDEX) | BIT(SIOCGIFPFLAGS) | BIT(SIOCGIFCOUNT) | BIT(SIOCGIFTXQLEN))
_Static_assert(SIOCGIFHWADDR - FIRST < 32 && SIOCGIFINDEX - FIRST >= 32 && SIOCGIFTXQLEN - FIRST < 64, "two words");
#define SUBTRACT(value) BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, value)
#define IF_GE(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, value, yes, no)
#define IS_IN(set) /* the lowest bit says it */                                                             \
	BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_LD | BPF_IMM, set), BPF_STMT(BPF_ALU | BPF_RSH | BPF_X, 0)
#define IF_SO(yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1, yes, no)

static struct sock_filter requests[] = {
	LOAD(arch),
	IF(NATIVE, 2, 0),
	LOAD(nr),
	IF(COMPAT_IOCTL, 2, 19), /* x32 has no sockets and no ioctl here: `program` refuses it */
	LOAD(nr),
	IF(SYS_ioctl, 0, 17),
	LOAD(args[1]),
	SUBTRACT(FIRST),
	IF_GE(PAST, 14, 0),
	IF(SIOCOUTQNSD - FIRST, 13, 0),
	IF(SIOCGIFMAP - FIRST, 12, 0),
	IF_GE(64, 10, 0),
	IF_GE(32, 4, 0),
	IS_IN(QUESTIONS), /* three instructions */
	IF_SO(6, 5),
	SUBTRACT(32),
	IS_IN(MORE_QUESTIONS),
	IF_SO(1, 0),
	ERROR(EPERM),
	RETURN(SECCOMP_RET_ALLOW),
};

#define INSTALL(flags, filter)                                                                              \
	syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags,                                                \
		&(struct sock_fprog){ sizeof(filter) / sizeof(*(filter)), filter })

static int install(unsigned long flags)
{
	return INSTALL(SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, program);
}

/* The notify descriptor, which closes at exec; or -1 inside an app that has the filter already
 * (there can be one listener): its holder goes on to inject. */
int install_filter(void)
{
	int notify = install(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
	if (notify < 0 && errno == EACCES) {
		/* Without CAP_SYS_ADMIN only; with it, sudo and ping under `ax run` keep working. */
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		notify = install(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
	}
	if (notify < 0 && errno == EINVAL)
		notify = install(0); /* Linux 5.18: a signal may then interrupt a socket() call */
	if ((notify < 0 && errno != EBUSY) || INSTALL(0, requests))
		fail(EX_OSERR, "cannot trap socket(): %s (try --new-netns=false)", strerror(errno));
	return notify;
}
