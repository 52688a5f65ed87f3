from __future__ import annotations

import pytest

import sentry.syscalls.table  # noqa: F401  all declarations
from sentry.syscalls.strace import families


@pytest.mark.parametrize(
    ("family", "members", "others"),
    [
        ("file", {"open", "openat", "statx", "execve", "getcwd", "mount", "unlinkat"},
         {"read", "fstat", "socket"}),
        ("desc", {"read", "close", "openat", "mmap", "poll", "epoll_ctl", "dup3", "ioctl"},
         {"stat", "sendto", "getpid"}),
        ("network", {"socket", "sendto", "accept4", "recvmmsg", "sendfile"}, {"read", "ioctl"}),
        ("process", {"clone3", "execve", "wait4", "exit_group", "kill"}, {"getpid", "ptrace"}),
        ("memory", {"brk", "mmap", "madvise", "shmat"}, {"read", "shmget"}),
        ("signal", {"rt_sigaction", "kill", "signalfd4"}, {"wait4"}),
        ("ipc", {"shmget", "semop", "msgrcv"}, {"mq_open", "futex"}),
    ],
)  # fmt: skip
def test_family_is_that_of_strace(family: str, members: set[str], others: set[str]) -> None:
    chosen = families.chosen([f"%{family}"])

    assert members <= chosen
    assert not others & chosen


def test_every_name_is_that_of_a_call() -> None:
    named = families.MORE_DESC | families.MORE_FILE
    for names in families.FIXED.values():
        named |= names

    assert named <= families.NAMES


def test_filter_is_checked() -> None:
    assert families.check(["openat", "%net"]) == ""
    assert "%flie" in families.check(["%flie"])
    assert "'opne'" in families.check(["read", "opne"])
