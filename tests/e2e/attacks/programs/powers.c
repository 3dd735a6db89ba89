/* What a program does with a socket's descriptor by other doors than libc's: `powers sockets` asks for
 * sockets by every table of system calls; `powers ioctl FD REQUEST` calls ioctl by i386's.  Prints the result.
 * Static, for x86-64. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long native(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}

static long i386(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("push %%rbx; mov %2, %%ebx; int $0x80; pop %%rbx"
			 : "=a"(result)
			 : "a"(number), "r"((int)a), "c"(b), "d"(c)
			 : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static const char *name_of(int error)
{
	return error == ENOSYS ? "ENOSYS" : error == EPERM ? "EPERM" : error == EFAULT ? "EFAULT" : "other";
}

static void say(const char *what, long result)
{
	printf("%s %s\n", what, result >= 0 ? "got one" : name_of(-result));
}

static int call[3] = { 2, 1, 0 };

int main(int count, char **arguments)
{
	if (count > 3 && !strcmp(arguments[1], "ioctl")) {
		say("ioctl", i386(54, atoi(arguments[2]), strtol(arguments[3], NULL, 0), 0));
		return 0;
	}
	say("native", native(41, 2, 1, 0));
	say("x32", native(0x40000000 + 41, 2, 1, 0));
	say("i386-socket", i386(359, 2, 1, 0));
	say("i386-socketcall", i386(102, 1, (long)call, 0)); /* SYS_SOCKET; the array is below 4 GiB: not PIE */
	return 0;
}
