"""What the Sentry may do on the host. No open, no socket, no exec, no fork."""

from __future__ import annotations

from collections.abc import Sequence

from kvm.binding import lib as kvm
from runsc.filters.common import COMMON
from runsc.filters.rule import Rule, low, one_of
from sentry.abi import fcntl as files
from sentry.abi import ioctl as tty
from sentry.abi import socket as sockets
from sentry.abi import unistd
from sentry.net.host.options import SETTABLE

_KVM = tuple(
    int(getattr(kvm, name))
    for name in (
        "KVM_RUN",
        "KVM_SET_USER_MEMORY_REGION",
        "KVM_GET_REGS",
        "KVM_SET_REGS",
        "KVM_GET_SREGS",
        "KVM_SET_SREGS",
        "KVM_GET_XSAVE",
        "KVM_SET_XSAVE",
    )
)
"""Machines and vCPUs are made before the filter; KVM_CREATE_* is not here."""

_TERMINAL = (
    tty.TCGETS,
    tty.TCSETS,
    tty.TCSETSW,
    tty.TCSETSF,
    tty.TIOCGWINSZ,
    tty.TIOCSWINSZ,
    tty.TIOCGPGRP,
    tty.TIOCSPGRP,
)
"""On a donated terminal. Never TIOCSTI: it would type into the caller's shell."""

_PLAIN = (tty.FIONBIO, tty.FIONREAD)
_SOCKET_COUNTS = (tty.TIOCOUTQ, sockets.SIOCATMARK)
_TEXT = "terminals of the caller, readiness of sockets, and the guest itself, by request number"
_PROGRAM = "depends on the program"

OWN = (
    Rule(
        unistd.newfstatat,
        "fstat(3) of glibc 2.33 and later; the root is empty, so a path would find nothing",
        ((low(3, files.AT_EMPTY_PATH),),),
        unused="this C library's fstat makes another call",
    ),
    Rule(unistd.mincore, "resident sizes: mincore(2), /proc/pid/smaps", unused=_PROGRAM),
    Rule(unistd.msync, "msync(2) of mapped files", unused=_PROGRAM),
    Rule(unistd.fadvise64, "posix_fadvise(2) on donated files", unused=_PROGRAM),
    Rule(unistd.sync_file_range, "the same call on donated files", unused=_PROGRAM),
    Rule(unistd.rt_sigtimedwait, "vCPU threads take the kick that ended KVM_RUN", unused=_PROGRAM),
    Rule(unistd.membarrier, "the host's, registered before the filter", unused=_PROGRAM),
    Rule(unistd.eventfd2, "waking the kernel thread", unused="made before the filter"),
    Rule(unistd.timerfd_create, "clock steps of the host", unused=_PROGRAM),
    Rule(unistd.timerfd_settime, "waits of the loop", unused=_PROGRAM),
    Rule(unistd.getrusage, "times of the sandbox", unused=_PROGRAM),
    Rule(
        unistd.sched_setaffinity,
        "the kernel thread leaves the core of a vCPU's thread; only ever for itself",
        ((low(0, 0),),),
        unused="the host's scheduler decides whether they meet",
    ),
    Rule(unistd.accept4, "connections to the control socket", unused="other command lines only"),
)


HOST_SOCKETS = (
    Rule(unistd.bind, "addresses of donated sockets", unused=_PROGRAM),
    Rule(unistd.connect, "connections of donated sockets", unused=_PROGRAM),
    Rule(unistd.listen, "servers on donated sockets", unused=_PROGRAM),
    Rule(
        unistd.setsockopt,
        "options of donated sockets",
        tuple((low(1, level), low(2, name)) for level, name in sorted(SETTABLE)),
    ),
)
"""With --network=host: on sockets that the network process has made."""


def rules(platform: str, network: str = "none") -> Sequence[Rule]:
    """The allow-list for a platform and a network."""
    requests = _TERMINAL + _PLAIN + (_KVM if platform == "kvm" else ())
    own: tuple[Rule, ...] = OWN
    if network == "host":
        requests += _SOCKET_COUNTS
        own = (*OWN, *HOST_SOCKETS)
    made = [*COMMON, *own, Rule(unistd.ioctl, _TEXT, one_of(1, requests))]
    return made if platform == "kvm" else [_with_jit(rule) for rule in made]


def _with_jit(rule: Rule) -> Rule:
    """unicorn translates the program to host code in memory that is writable and executable.

    This filter is weaker, as that platform is: it is no security boundary.
    """
    if rule.number in (unistd.mmap, unistd.mprotect):
        return Rule(rule.number, "unicorn's translation cache is executable", unused=rule.unused)
    return rule
