"""What a Sentry may do besides that was started with --forkable: fork(2), and in the child make a
machine with its threads. The child then puts on the program without all of that, too: both hold.

Still no open, no exec, no socket. A process that it makes is what it is: in its namespaces, under
this filter, with its descriptors.
"""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Sequence

from gofer.confine import THREAD
from kvm.binding import lib as kvm
from runsc.filters import sentry
from runsc.filters.rule import Rule, Test, low, one_of
from sentry.abi import fcntl as files
from sentry.abi import seccomp, unistd
from sentry.abi.sched import CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID

USE = "fork"
KICK = signal.SIGRTMIN + 2
"""Of `pool_open` (sentry/platform/native)."""
FORK = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | signal.SIGCHLD
"""Exactly what glibc's fork passes to clone(2)."""
MAKES = tuple(
    int(getattr(kvm, name))
    for name in (
        "KVM_CREATE_VM", "KVM_GET_VCPU_MMAP_SIZE", "KVM_CREATE_VCPU", "KVM_SET_CPUID2",
        "KVM_SET_XCRS", "KVM_SET_MSRS", "KVM_SET_DEVICE_ATTR", "KVM_SET_SIGNAL_MASK",
    )
)  # fmt: skip

KICKS = Rule(
    unistd.tgkill,
    USE,
    "kicking a thread of our own, whatever number a fork has; others ignore this signal",
    ((low(2, KICK),),),
)

STREAMS = Rule(
    unistd.dup3,
    USE,
    "a fork's own descriptors under the numbers of its parent's; streams of a command that it has"
    " from there",
    ((low(2, files.O_CLOEXEC),),),
)

BEGINNING = (
    Rule(
        unistd.clone,
        USE,
        "fork(2) of the sandbox; threads of the fork",
        ((Test(0, FORK),), (Test(0, THREAD),)),
    ),
    Rule(unistd.clone3, USE, "its arguments are out of sight; glibc uses clone", (), errno.ENOSYS),
    Rule(unistd.getpid, USE, "whom a fork kicks"),
    Rule(unistd.gettid, USE, "the same; a thread's start"),
    Rule(
        unistd.timer_create,
        USE,
        "a fork's own clock of CPU time, for who is bounded",
        ((low(0, time.CLOCK_THREAD_CPUTIME_ID),),),
    ),
    Rule(unistd.timer_settime, USE, "the same"),
    Rule(unistd.epoll_create1, USE, "a fork's own set of what it waits for"),
    Rule(unistd.eventfd2, USE, "a fork's own ways to wake it"),
    Rule(unistd.timerfd_create, USE, "a fork's own timers"),
    Rule(
        unistd.seccomp,
        USE,
        "a fork gives all of this up",
        ((low(0, seccomp.SECCOMP_SET_MODE_FILTER), low(1, seccomp.SECCOMP_FILTER_FLAG_TSYNC)),),
    ),
)


def rules(network: str = "none", *, is_sealed: bool) -> Sequence[Rule]:
    """The allow-list; `is_sealed`: that of a fork that has begun."""
    made = [STREAMS]
    for rule in sentry.rules("kvm", network):
        if rule.number == unistd.tgkill:
            made.append(KICKS)
        elif rule.number == unistd.ioctl and not is_sealed:
            reason = f"{rule.reason}; a machine of a fork's own"
            made.append(Rule(rule.number, rule.use, reason, rule.when + one_of(1, MAKES)))
        else:
            made.append(rule)
    return made if is_sealed else [*made, *BEGINNING]
