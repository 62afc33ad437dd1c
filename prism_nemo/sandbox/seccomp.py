"""The system calls a sandboxed program may make: an allowlist compiled to BPF by libseccomp.

Everything else gives ENOSYS, as on a kernel without it, so that the C library falls back where it can. Not on the list:
sockets (but an anonymous pair), ptrace, mounts, namespaces, keys, BPF, io_uring, shared-memory and anonymous files.
"""

import ctypes
import functools
import os

ALLOW = 0x7FFF0000
ENOSYS = 0x00050000 | 38
EAGAIN = 0x00050000 | 11
EQUAL, MASKED_EQUAL = 4, 7
CLONE_THREAD = 0x00010000
NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | NEWTIME."""
THREAD_ALONE = CLONE_THREAD | NEW_NAMESPACES
AF_UNIX = 1

FILES = """
read write readv writev pread64 pwrite64 lseek open openat close close_range creat stat fstat lstat newfstatat statx
access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat
renameat2 link linkat symlink symlinkat chmod fchmod fchmodat truncate ftruncate fallocate fsync fdatasync getdents
getdents64 umask utime utimes utimensat futimesat dup dup2 dup3 pipe pipe2 fcntl flock ioctl poll ppoll select pselect6
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 sendfile copy_file_range
fadvise64 statfs fstatfs sendto recvfrom shutdown getsockname getsockopt setsockopt
"""
MEMORY = "brk mmap munmap mprotect mremap madvise mincore msync membarrier"
PROCESS = """
exit exit_group wait4 waitid execve getpid getppid gettid getuid geteuid getgid getegid getgroups getresuid getresgid
getpgid getpgrp getsid setsid setpgid arch_prctl prctl set_tid_address set_robust_list get_robust_list rseq futex
sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu
getpriority uname sysinfo getrlimit setrlimit prlimit64 getrusage getrandom restart_syscall
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack kill tkill tgkill
alarm pause setitimer getitimer
"""
TIME = "nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times"
START_PROCESSES = "fork vfork"


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Compare),
    )
    return library


@functools.cache
def program(*, processes: bool) -> bytes:
    """The BPF program for this machine; `processes`: whether the sandboxed program may start others.

    Raises OSError when libseccomp is not installed or refuses a rule.
    """
    library = _library()
    context = library.seccomp_init(ENOSYS)
    if not context:
        raise OSError("libseccomp cannot make a filter")
    try:
        names = f"{FILES} {MEMORY} {PROCESS} {TIME} {START_PROCESSES if processes else ''}"
        for name in names.split():
            _add(library, context, ALLOW, name)
        _add(library, context, ALLOW, "socketpair", _Compare(0, EQUAL, AF_UNIX, 0))
        if processes:
            _add(library, context, ALLOW, "clone", _Compare(0, MASKED_EQUAL, NEW_NAMESPACES, 0))
        else:
            _add(library, context, ALLOW, "clone", _Compare(0, MASKED_EQUAL, THREAD_ALONE, CLONE_THREAD))
            _add(library, context, EAGAIN, "clone", _Compare(0, MASKED_EQUAL, CLONE_THREAD, 0))
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, action: int, name: str, *compares: _Compare) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:  # another architecture has no such call
        return
    array = (_Compare * len(compares))(*compares)
    code = library.seccomp_rule_add_array(context, action, number, len(compares), array)
    if code:
        raise OSError(-code, f"libseccomp refuses the rule for {name}")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    handle = os.memfd_create("seccomp")
    try:
        code = library.seccomp_export_bpf(context, handle)
        if code:
            raise OSError(-code, "libseccomp cannot write the filter")
        return os.pread(handle, os.fstat(handle).st_size, 0)
    finally:
        os.close(handle)
