"""Which system calls a filter of --strace-syscalls lets through: names, and strace(1)'s families.

What a call works on is taken from its declaration where that says it (a path, a descriptor).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sentry.syscalls.registry import NUMBERS, TABLE
from sentry.syscalls.show import show_dirfd, show_path

NAMES: Final = frozenset(NUMBERS.values())
NETWORK: Final = frozenset({
    "socket", "socketpair", "bind", "connect", "listen", "accept", "accept4", "shutdown",
    "getsockname", "getpeername", "getsockopt", "setsockopt", "sendto", "recvfrom", "sendmsg",
    "recvmsg", "sendmmsg", "recvmmsg", "sendfile",
})  # fmt: skip
PROCESS: Final = frozenset({
    "clone", "clone3", "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4",
    "waitid", "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    "pidfd_send_signal",
})  # fmt: skip
MEMORY: Final = frozenset({
    "brk", "mmap", "munmap", "mprotect", "pkey_mprotect", "mremap", "remap_file_pages", "msync",
    "mincore", "madvise", "process_madvise", "mlock", "mlock2", "munlock", "mlockall",
    "munlockall", "mseal", "mbind", "set_mempolicy", "get_mempolicy", "set_mempolicy_home_node",
    "migrate_pages", "move_pages", "shmat", "shmdt", "io_setup", "io_destroy", "userfaultfd",
    "process_mrelease", "map_shadow_stack",
})  # fmt: skip
SIGNAL: Final = frozenset({
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait",
    "rt_sigsuspend", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sigaltstack", "kill", "tkill",
    "tgkill", "pause", "signalfd", "signalfd4", "pidfd_send_signal",
})  # fmt: skip
IPC: Final = frozenset({
    "shmget", "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget",
    "msgsnd", "msgrcv", "msgctl",
})  # fmt: skip
MORE_FILE: Final = frozenset({"getcwd", "fanotify_mark", "mount", "quotactl", "execve", "execveat"})
"""About names of files, though no parameter is declared as one."""
MORE_DESC: Final = frozenset({
    "open", "creat", "pipe", "pipe2", "poll", "ppoll", "select", "pselect6", "epoll_create",
    "epoll_create1", "eventfd", "eventfd2", "signalfd", "signalfd4", "timerfd_create",
    "inotify_init", "inotify_init1", "fanotify_init", "memfd_create", "memfd_secret", "mmap",
    "perf_event_open", "pidfd_open", "userfaultfd", "mq_open", "fsopen", "io_uring_setup", "bpf",
    "landlock_create_ruleset", "close_range", "sendfile", "dup2", "dup3",
})  # fmt: skip
"""Make a descriptor, or take a set of them."""
FIXED: Final = {
    "network": NETWORK, "net": NETWORK, "process": PROCESS, "memory": MEMORY, "signal": SIGNAL,
    "ipc": IPC,
}  # fmt: skip
FAMILIES: Final = ("file", "desc", *FIXED)


def check(words: Sequence[str]) -> str:
    """What is wrong with a filter; "" if nothing is."""
    for word in words:
        if word.startswith("%"):
            if word[1:] not in FAMILIES:
                return f"no family {word}: one of {', '.join(f'%{each}' for each in FAMILIES)}"
        elif word not in NAMES:
            return f"no system call {word!r}"
    return ""


def chosen(words: Sequence[str]) -> frozenset[str]:
    """The calls that a filter names. Preconditions: all declarations are imported."""
    found: set[str] = set()
    for word in words:
        found |= _family(word[1:]) if word.startswith("%") else {word}
    return frozenset(found)


def _family(name: str) -> frozenset[str]:
    if name in FIXED:
        return FIXED[name]
    found = set(MORE_FILE if name == "file" else MORE_DESC)
    for declaration in TABLE:
        if declaration is None:
            continue
        if name == "file":
            wanted = any(mark.show is show_path for _, mark in declaration.args)
        else:
            wanted = declaration.name not in NETWORK and any(
                mark.is_fd or mark.show is show_dirfd or parameter.endswith("fd")
                for parameter, mark in declaration.args
            )
        if wanted:
            found.add(declaration.name)
    return frozenset(found)
