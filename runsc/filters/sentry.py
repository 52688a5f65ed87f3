"""What the Sentry may do on the host. No open, no socket, no exec, no fork, no new thread."""

from __future__ import annotations

from collections.abc import Sequence

from kvm.binding import lib as kvm
from runsc.filters.common import NO_EXEC, common
from runsc.filters.rule import Rule, Test, low, one_of
from sentry.abi import fcntl as files
from sentry.abi import ioctl as tty
from sentry.abi import prctl, unistd
from sentry.abi import socket as sockets
from sentry.net.host.options import SETTABLE

SANDBOX_PID = 1
"""It is the first of a pid namespace of its own."""

_KVM = tuple(
    int(getattr(kvm, name))
    for name in ("KVM_RUN", "KVM_SET_USER_MEMORY_REGION", "KVM_GET_XSAVE", "KVM_SET_XSAVE")
)
"""Machines and vCPUs are made before the filter; KVM_CREATE_* is not here."""

_TERMINAL = (
    tty.TCGETS,
    tty.TCSETS,
    tty.TCSETSW,
    tty.TCSETSF,
    tty.TCGETS2,  # what the C library asks since glibc 2.42
    tty.TCSETS2,
    tty.TCSETSW2,
    tty.TCSETSF2,
    tty.TIOCGWINSZ,
    tty.TIOCSWINSZ,
    tty.TIOCOUTQ,
    tty.TCFLSH,
    tty.TCSBRK,
)
"""On a donated terminal. Never TIOCSTI: it would type into the caller's shell; nor TCXONC, which
could leave it showing nothing."""

_CHANGES = (tty.PAGEMAP_SCAN, tty.UFFDIO_REGISTER)
"""What of RAM has changed since a snapshot. Both are about this process's own memory alone."""

_TEXT = (
    "terminals of the caller, bytes in a donated queue, what of RAM has changed since a snapshot,"
    " and the guest itself, by request number;"
    " never FIONBIO: flags of what was donated are the caller's"
)

OWN = (
    # Memory and threads.
    Rule(
        unistd.mprotect,
        "forced",
        "translations of a forked machine dropped; never executable",
        (NO_EXEC,),
    ),
    Rule(unistd.madvise, "start", "giving pages back, stacks of threads that end"),
    Rule(unistd.mincore, "start", "which pages the host has given"),
    Rule(unistd.futex, "start", "locks, conditions, threads that wait for work"),
    Rule(unistd.membarrier, "forced", "the host's, registered before the filter"),
    Rule(unistd.set_robust_list, "forced", "the start of a thread made just before the filter"),
    Rule(unistd.rseq, "forced", "the start of a thread made just before the filter"),
    Rule(unistd.exit, "start", "the end of a thread"),
    Rule(unistd.sched_getaffinity, "start", "on which cores the kernel thread may be"),
    Rule(
        unistd.sched_setaffinity,
        "start",
        "the kernel thread leaves the core of a vCPU's thread; only ever for itself",
        ((low(0, 0),),),
    ),
    # Signals, time, waiting.
    Rule(
        unistd.tgkill,
        "start",
        "kicking a thread of our own",
        ((low(0, SANDBOX_PID),),),
    ),
    Rule(unistd.rt_sigtimedwait, "start", "threads take the kick that ended KVM_RUN"),
    Rule(unistd.rt_sigprocmask, "start", "threads that start or end"),
    Rule(unistd.rt_sigaction, "start", "the end of kicks; a fault that is our own"),
    Rule(unistd.rt_sigreturn, "forced", "the handler of SIGBUS, when a donated file was cut"),
    Rule(unistd.restart_syscall, "forced", "the kernel's own, after a stop and continuation"),
    Rule(unistd.clock_gettime, "start", "CPU time of threads"),
    Rule(unistd.getrusage, "forced", "whether the kernel thread waited for a disk"),
    Rule(unistd.timerfd_settime, "one CPU", "the deadline of a program on the kernel thread"),
    Rule(unistd.epoll_pwait2, "start", "the loop"),
    Rule(unistd.epoll_ctl, "start", "the loop"),
    Rule(unistd.poll, "start", "whether a descriptor is ready"),
    Rule(unistd.ppoll, "files", "a moment for the threads of slow files"),
    # Files.
    Rule(unistd.read, "start", "descriptors we hold"),
    Rule(unistd.pread64, "start", "how much memory we take"),
    Rule(unistd.preadv2, "start", "donated files and streams"),
    Rule(unistd.pwritev2, "files", "donated files and streams"),
    Rule(unistd.fstat, "start", "size and kind of descriptors we hold"),
    Rule(
        unistd.newfstatat,
        "forced",
        "fstat(3) of glibc 2.33 to 2.38; the root is empty, so a path would find nothing",
        ((low(3, files.AT_EMPTY_PATH),),),
    ),
    Rule(unistd.lseek, "start", "holes and ends of donated files"),
    Rule(unistd.ftruncate, "files", "donated files, files in RAM"),
    Rule(unistd.fallocate, "files", "punching RAM, room on a disk, donated files"),
    Rule(unistd.fdatasync, "files", "donated files"),
    Rule(
        unistd.fcntl,
        "start",
        "what a descriptor allows, a second one of the same, the size of a pipe, whether memory can"
        " be cut; never F_SETFL: flags of what was donated are the caller's",
        one_of(
            1, (files.F_GETFL, files.F_DUPFD_CLOEXEC, files.F_GETPIPE_SZ, files.F_GET_SEALS)
        ),
    ),
    # Sockets, names, chance.
    Rule(
        unistd.sendto,
        "start",
        "9P, control, requests to the network process, frames for passt; never to an address",
        ((Test(4, 0),),),
    ),
    Rule(unistd.accept4, "exec", "connections to the control socket"),
    Rule(unistd.getsockopt, "start", "who connects to it; CPython, making a socket object"),
    Rule(unistd.getrandom, "forced", "chance for the program, where the vDSO has none"),
    Rule(
        unistd.prctl,
        "exec",
        "outliving the command line that created the sandbox",
        ((low(0, prctl.PR_SET_PDEATHSIG), Test(1, 0)),),
    ),
)

_FRAMES_IN = sockets.MSG_DONTWAIT | sockets.MSG_TRUNC
_FRAMES_OUT = sockets.MSG_DONTWAIT | sockets.MSG_NOSIGNAL

SHUTDOWN = Rule(unistd.shutdown, "network", "the end of a direction of donated sockets")
"""Also where config.json mounts a socket of the host."""

HOST_SOCKETS = (
    Rule(unistd.bind, "network", "addresses of donated sockets"),
    Rule(unistd.connect, "network", "connections of donated sockets"),
    Rule(unistd.listen, "network", "servers on donated sockets"),
    Rule(unistd.getpeername, "network", "addresses of donated sockets"),
    SHUTDOWN,
    Rule(unistd.sendmsg, "network", "data of donated sockets, requests for privileged ports"),
    Rule(
        unistd.setsockopt,
        "network",
        "options of donated sockets",
        tuple((low(1, level), low(2, name)) for level, name in sorted(SETTABLE)),
    ),
)
"""With --network=host: on sockets that the network process has made."""


UPLINKS = (
    Rule(unistd.recvmmsg, "uplink", "frames of a packet socket", ((low(3, _FRAMES_IN),),)),
    Rule(unistd.sendmmsg, "uplink", "frames of a packet socket", ((low(3, _FRAMES_OUT),),)),
    Rule(unistd.shutdown, "uplink", "the end of a direction of what a process of the host began"),
)
"""With a stack of its own: on packet sockets that the network process has made, and connections
that it has accepted. passt needs none of them."""


def rules(
    platform: str, network: str = "none", more: Sequence[Rule] = ()
) -> Sequence[Rule]:
    """The allow-list for a platform and a network; `more` where the network is none."""
    requests = (*_TERMINAL, tty.FIONREAD, *_CHANGES, *(_KVM if platform == "kvm" else ()))
    own: tuple[Rule, ...] = (*OWN, *more)
    if network == "host":
        requests += (sockets.SIOCATMARK,)
        own = (*OWN, *HOST_SOCKETS)
    elif network == "sandbox":
        own = (*OWN, *UPLINKS, *(each for each in more if each is not SHUTDOWN))
    made = [*common("start"), *own, Rule(unistd.ioctl, "start", _TEXT, one_of(1, requests))]
    return made if platform == "kvm" else [*map(_with_jit, made), *UNICORN]


UNICORN = (Rule(unistd.clock_nanosleep, "unicorn", "back-off of the thread that watches"),)


def _with_jit(rule: Rule) -> Rule:
    """unicorn translates the program to host code in memory that is writable and executable.

    This filter is weaker, as that platform is: it is no security boundary.
    """
    if rule.number in (unistd.mmap, unistd.mprotect):
        return Rule(rule.number, rule.use, "unicorn's translation cache is executable")
    return rule
