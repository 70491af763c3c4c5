/*
 * Preloaded into the kernel of a guest: lets User Mode Linux 6.1 run where processors have more registers than it knows.
 *
 * It saves and restores the floating-point registers of its processes by PTRACE_GETREGSET and PTRACE_SETREGSET with a
 * buffer of fixed size. This host's kernel refuses to set less than all of what the processor has (EFAULT), and with AMX
 * that is more. So all is read, the part that the guest's kernel knows is replaced, and all is set.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define LARGEST 65536

static long set_all(pid_t pid, const struct iovec *known)
{
	static char registers[LARGEST]; /* the guest's kernel has one thread that calls this */
	struct iovec all = {registers, sizeof registers};

	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all) < 0)
		return -1;
	memcpy(registers, known->iov_base, known->iov_len < all.iov_len ? known->iov_len : all.iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	pid_t pid;
	void *address, *data;
	long peeked;

	va_start(rest, request);
	pid = va_arg(rest, pid_t);
	address = va_arg(rest, void *);
	data = va_arg(rest, void *);
	va_end(rest);
	if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
		return set_all(pid, data);
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER)
		return syscall(SYS_ptrace, request, pid, address, &peeked) < 0 ? -1 : peeked;
	return syscall(SYS_ptrace, request, pid, address, data);
}
