"""What the Gofer may still do once it serves: capabilities and system calls, as data.

The namespaces, the empty root and the installation of both are done by the process that starts the
Gofer (runsc/launch, runsc/filters), which compiles these tables; nothing here makes a system call.
no_new_privs is a precondition of the filter and is set there too.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable, Sequence
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
    lib.CAP_SETFCAP: "file capabilities, which packages set; no more than set-user-id bits are",
}


_AS_SOMEBODY: Final = {
    lib.CAP_SETUID: "a service sees as whom the program inside connects",
    lib.CAP_SETGID: "the same for groups",
}


def _connects(attachments: Iterable[Attachment]) -> bool:
    """Whether there are sockets among them that may be connected to, or below them."""
    return any(attachment.connects or attachment.reaches for attachment in attachments)


def _binds(attachments: Iterable[Attachment]) -> bool:
    return any(attachment.binds for attachment in attachments)


def capabilities(attachments: Sequence[Attachment]) -> dict[int, str]:
    """The capabilities to keep, with reasons: those to write only if something may be written."""
    kept = dict(_READ)
    if any(not attachment.readonly for attachment in attachments):
        kept |= _WRITE
    return kept | _AS_SOMEBODY if _connects(attachments) or _binds(attachments) else kept


class Argument(Struct, frozen=True):
    """A condition: `argument[index] & mask == value`, on 64 bits."""

    index: int
    value: int
    mask: int = 0xFFFFFFFFFFFFFFFF


class Rule(Struct, frozen=True):
    """A system call that is allowed if all conditions hold. Rules of one name are alternatives.

    `use` is the run of tests/e2e/test_filter_use.py that makes the call. `errno` is not 0: the
    call is answered with that error instead (under the same conditions).
    """

    name: str
    reason: str
    arguments: tuple[Argument, ...] = ()
    errno: int = 0
    use: str = "requests"


_LOW: Final = 0xFFFFFFFF
"""The C type of the argument has 32 bits: the kernel ignores the upper half."""
_NOT_EXEC = Argument(2, 0, mmap.PROT_EXEC)
THREAD: Final = (
    lib.CLONE_VM
    | lib.CLONE_FS
    | lib.CLONE_FILES
    | lib.CLONE_SIGHAND
    | lib.CLONE_THREAD
    | lib.CLONE_SYSVSEM
    | lib.CLONE_SETTLS
    | lib.CLONE_PARENT_SETTID
    | lib.CLONE_CHILD_CLEARTID
)
"""Exactly what glibc's pthread_create passes to clone(2)."""

_SIGSETXID = 33
"""The second of the signals that glibc keeps for itself (nptl, internal-signals.h)."""


def _fcntl(operation: int) -> tuple[Argument]:
    return (Argument(1, operation, _LOW),)


SYSCALLS: Final = (
    # The sockets and the loop.
    Rule("recvfrom", "requests"),
    Rule("sendto", "replies"),
    Rule("sendmsg", "replies that carry a descriptor"),
    Rule(
        "socketpair",
        "the socket of a duplicated session",
        (Argument(0, lib.AF_UNIX, _LOW), Argument(1, lib.SOCK_STREAM | lib.SOCK_CLOEXEC, _LOW)),
    ),
    Rule("getsockname", "CPython asks a socket for its family when it wraps it"),
    Rule("epoll_ctl", "sessions come and go"),
    Rule("epoll_wait", "the loop"),
    Rule("read", "the eventfd"),
    Rule("write", "the eventfd, the log"),
    Rule("writev", "glibc's last words: what is broken in the heap", use="forced"),
    Rule("close", "descriptors of nodes, files, sessions"),
    Rule("fcntl", "mode of a descriptor", _fcntl(lib.F_GETFL)),
    Rule("fcntl", "CPython checks whether a descriptor is inherited", _fcntl(lib.F_GETFD)),
    Rule("fcntl", "a second descriptor of a nameless file", _fcntl(lib.F_DUPFD_CLOEXEC)),
    # Files below the attachments. Only openat2 opens, always beneath a descriptor.
    Rule("openat2", "the one way to open; its RESOLVE_BENEATH is set in native.c"),
    Rule("statx", "attributes"),
    Rule("fstat", "size of an open file"),
    Rule(
        "newfstatat",
        "fstat(3) of glibc 2.33 to 2.38: never by a name",
        (Argument(3, lib.AT_EMPTY_PATH, _LOW),),
        use="forced",
    ),
    Rule("fstatfs", "Tstatfs"),
    Rule("getdents64", "listings"),
    Rule("lseek", "the cookie at which a listing goes on"),
    Rule("readlinkat", "text of links"),
    Rule("pread64", "Tread, on the pool; a journal", use="forced"),
    Rule("preadv2", "Tread of what is cached (RWF_NOWAIT)"),
    Rule("pwrite64", "Twrite"),
    Rule("ftruncate", "O_TRUNC, sizes"),
    Rule("fsync", "Tfsync"),
    Rule("fdatasync", "Tfsync"),
    Rule("syncfs", "Tsyncx"),
    Rule("fchownat", "owners"),
    Rule("fchmodat2", "modes, by O_PATH descriptors"),
    Rule("fchmod", "modes, before Linux 6.6", use="forced"),
    Rule("utimensat", "times"),
    Rule("mkdirat", "directories"),
    Rule("mknodat", "fifos and sockets; devices need a capability that is not there"),
    Rule("symlinkat", "links"),
    Rule("linkat", "hard links"),
    Rule("renameat2", "renames"),
    Rule("unlinkat", "unlink and rmdir"),
    Rule("fgetxattr", "extended attributes"),
    Rule(
        "ioctl",
        "the project of a directory",
        (Argument(1, lib.FS_IOC_FSGETXATTR, _LOW),),
    ),
    Rule("fsetxattr", "extended attributes"),
    Rule("flistxattr", "extended attributes"),
    Rule("fremovexattr", "extended attributes"),
    # What the host may change.
    Rule("inotify_add_watch", "a directory, as `.`, or a link or special file in it"),
    Rule("inotify_rm_watch", "one that the client forgets"),
    Rule(
        "fanotify_mark",
        "a directory of the root, which it takes as `.`",
        (Argument(1, lib.FAN_MARK_ADD | lib.FAN_MARK_ONLYDIR, _LOW),),
    ),
    Rule(
        "fanotify_mark",
        "none any more",
        (Argument(1, lib.FAN_MARK_FLUSH, _LOW),),
        use="forced",
    ),
    Rule(
        "name_to_handle_at",
        "what events call a directory",
        (Argument(4, lib.AT_EMPTY_PATH | lib.AT_HANDLE_FID, _LOW),),
    ),
    Rule(
        "name_to_handle_at",
        "the same before Linux 6.5",
        (Argument(4, lib.AT_EMPTY_PATH, _LOW),),
        use="forced",
    ),
    Rule("fchdir", "what `.` is; a descriptor of a tree that is served, so nothing more to reach"),
    # Where it runs, of the CPUs that it was given.
    Rule("sched_getaffinity", "these", (Argument(0, 0, _LOW),)),
    Rule("sched_setaffinity", "where who waits does; this thread only", (Argument(0, 0, _LOW),)),
    # The interpreter and its threads.
    Rule("brk", "memory", use="forced"),
    Rule("mmap", "memory, never executable", (_NOT_EXEC,)),
    Rule("mprotect", "stacks of threads; never executable", (_NOT_EXEC,), use="forced"),
    Rule("munmap", "memory", use="forced"),
    Rule("mremap", "realloc of large blocks", use="forced"),
    Rule("madvise", "memory given back, stacks of ended threads", use="forced"),
    Rule("futex", "the interpreter's lock, queues"),
    Rule("clone", "threads of the pool, never processes", (Argument(0, THREAD),)),
    Rule("clone3", "its arguments are out of sight; glibc falls back to clone", errno=errno.ENOSYS),
    Rule("set_robust_list", "a thread's start"),
    Rule("rseq", "a thread's start"),
    Rule("gettid", "a thread's start"),
    Rule("clock_gettime", "where the vDSO cannot answer", use="forced"),
    Rule("rt_sigprocmask", "a thread's start"),
    Rule(
        "rt_sigaction",
        "glibc's handler for changes of user, installed before the first thread",
        (Argument(0, _SIGSETXID, _LOW),),
        use="forced",
    ),
    Rule("restart_syscall", "waits for the interpreter's lock, after a stop", use="forced"),
    Rule("exit", "a thread's end", use="forced"),
    Rule("exit_group", "the end"),
)

SOCKETS: Final = (
    Rule(
        "socket",
        "to be connected to a socket of the host, or to be one, for a program",
        (Argument(0, lib.AF_UNIX, _LOW),),
        use="sockets",
    ),
    Rule("setresuid", "as who asks for it, and back", use="sockets"),
    Rule("setresgid", "as who asks for it, and back", use="sockets"),
    Rule("setgroups", "as who asks for it, and back", use="sockets"),
)
CONNECT: Final = (
    Rule(
        "connect",
        "sockets of the host: a name in the empty root, or in a directory that is served",
        use="sockets",
    ),
)
BIND: Final = (
    Rule("bind", "a socket that the host may connect to: a name in a directory", use="sockets"),
    Rule("listen", "the same, when the program listens", use="sockets"),
)


def socket_rules(attachments: Sequence[Attachment]) -> tuple[Rule, ...]:
    """Besides, where programs may do so."""
    more = (CONNECT if _connects(attachments) else ()) + (BIND if _binds(attachments) else ())
    return SOCKETS + more if more else ()
