"""What the Gofer may still do once it serves: capabilities and system calls, as data.

The namespaces, the empty root and the installation of both are done by the process that starts the
Gofer (runsc/launch, runsc/filters), which compiles these tables; nothing here makes a system call.
no_new_privs is a precondition of the filter and is set there too.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from gofer._native import lib
from gofer.attachment import Attachment

_READ: Final = {
    lib.CAP_DAC_OVERRIDE: "the Sentry has checked the rights; the host's owners do not count here",
    lib.CAP_DAC_READ_SEARCH: "the same for reading, and linkat(2) by descriptor",
}
_WRITE: Final = {
    lib.CAP_CHOWN: "files belong to the user who makes them inside",
    lib.CAP_FOWNER: "chmod, utimes, sticky directories on behalf of that user",
    lib.CAP_FSETID: "set-group-id bits survive a change of a file by root inside",
}


def capabilities(attachments: Iterable[Attachment]) -> dict[int, str]:
    """The capabilities to keep, with reasons: those to write only if something may be written."""
    writable = any(not attachment.readonly for attachment in attachments)
    return {**_READ, **_WRITE} if writable else dict(_READ)


class Argument(Struct, frozen=True):
    """A condition: `argument[index] & mask == value`, on 64 bits."""

    index: int
    value: int
    mask: int = 0xFFFFFFFFFFFFFFFF


class Rule(Struct, frozen=True):
    """A system call that is allowed if all conditions hold. Rules of one name are alternatives.

    `errno` is not 0: the call is answered with that error instead (under the same conditions).
    """

    name: str
    reason: str
    arguments: tuple[Argument, ...] = ()
    errno: int = 0


_NOT_EXEC = Argument(2, 0, mmap.PROT_EXEC)

SYSCALLS: Final = (
    # The sockets and the loop.
    Rule("recvfrom", "requests"),
    Rule("sendto", "replies"),
    Rule("sendmsg", "replies that carry a descriptor"),
    Rule("socketpair", "the socket of a duplicated session", (Argument(0, lib.AF_UNIX),)),
    Rule("getsockname", "CPython asks a socket for its family when it wraps it"),
    Rule("epoll_create1", "made when serving starts"),
    Rule("epoll_ctl", "sessions come and go"),
    Rule("epoll_wait", "the loop"),
    Rule("eventfd2", "how pool threads wake the loop; made when serving starts"),
    Rule("read", "the eventfd"),
    Rule("write", "the eventfd, the log"),
    Rule("close", "descriptors of nodes, files, sessions"),
    Rule("fcntl", "mode of a descriptor", (Argument(1, lib.F_GETFL),)),
    Rule("fcntl", "CPython checks whether a descriptor is inherited", (Argument(1, lib.F_GETFD),)),
    Rule("fcntl", "a second descriptor of a nameless file", (Argument(1, lib.F_DUPFD_CLOEXEC),)),
    Rule("ioctl", "CPython makes a new socket close-on-exec", (Argument(1, lib.FIOCLEX),)),
    # Files below the attachments. Only openat2 opens, always beneath a descriptor.
    Rule("openat2", "the one way to open; its RESOLVE_BENEATH is set in native.c"),
    Rule("statx", "attributes"),
    Rule("fstat", "size of an open file"),
    Rule("newfstatat", "fstat(3) of newer glibc"),
    Rule("fstatfs", "Tstatfs"),
    Rule("getdents64", "listings"),
    Rule("lseek", "the cookie at which a listing goes on"),
    Rule("readlinkat", "text of links"),
    Rule("pread64", "Tread, on the pool"),
    Rule("preadv2", "Tread of what is cached (RWF_NOWAIT)"),
    Rule("pwrite64", "Twrite"),
    Rule("ftruncate", "O_TRUNC, sizes"),
    Rule("fsync", "Tfsync"),
    Rule("fdatasync", "Tfsync"),
    Rule("fchownat", "owners"),
    Rule("fchmodat2", "modes, by O_PATH descriptors"),
    Rule("fchmod", "modes, before Linux 6.6"),
    Rule("utimensat", "times"),
    Rule("mkdirat", "directories"),
    Rule("mknodat", "fifos and sockets; devices need a capability that is not there"),
    Rule("symlinkat", "links"),
    Rule("linkat", "hard links"),
    Rule("renameat2", "renames"),
    Rule("unlinkat", "unlink and rmdir"),
    Rule("fgetxattr", "extended attributes"),
    Rule("fsetxattr", "extended attributes"),
    Rule("flistxattr", "extended attributes"),
    Rule("fremovexattr", "extended attributes"),
    # Directories that the host may change.
    Rule("inotify_add_watch", "a directory; it takes a name, so `.`"),
    Rule("inotify_rm_watch", "a directory that the client forgets"),
    Rule("fchdir", "what `.` is; a descriptor of a tree that is served, so nothing more to reach"),
    # The interpreter and its threads.
    Rule("brk", "memory"),
    Rule("mmap", "memory, never executable", (_NOT_EXEC,)),
    Rule("mprotect", "guard pages of thread stacks, arenas; never executable", (_NOT_EXEC,)),
    Rule("munmap", "memory"),
    Rule("mremap", "realloc of large blocks"),
    Rule("madvise", "memory given back, stacks of ended threads"),
    Rule("futex", "the interpreter's lock, queues"),
    Rule(
        "clone",
        "pool threads, never processes",
        (Argument(0, lib.CLONE_VM | lib.CLONE_THREAD, lib.CLONE_VM | lib.CLONE_THREAD),),
    ),
    Rule("clone3", "its arguments are out of sight; glibc falls back to clone", errno=errno.ENOSYS),
    Rule("set_robust_list", "a thread's start"),
    Rule("rseq", "a thread's start"),
    Rule("gettid", "a thread's start"),
    Rule("getpid", "CPython after a fork"),
    Rule("geteuid", "who owns what was just made"),
    Rule("sched_yield", "the interpreter's lock"),
    Rule("clock_gettime", "where the vDSO cannot answer"),
    Rule("rt_sigprocmask", "a thread's start"),
    Rule("rt_sigaction", "SIGPIPE is ignored"),
    Rule("rt_sigreturn", "the end of a signal handler"),
    Rule("restart_syscall", "the loop goes on after SIGSTOP and SIGCONT"),
    Rule("prlimit64", "how many descriptors there may be"),
    Rule("umask", "modes are the client's, whole"),
    Rule("exit", "a thread's end"),
    Rule("exit_group", "the end"),
)
