"""Who is killed on the host, so that engines hear of a program that the Sentry has killed.

Programs of a container are no processes of the host, so its kernel counts nothing when the Sentry's
out-of-memory killer ends one. But engines look there: conmon and containerd's shim watch
memory.events (version 2), or ask for the events of memory.oom_control (version 1), in the cgroup of
the container's pid, and `OOMKilled` comes of it. So one process more waits in that cgroup, where
config.json limits memory. When the sandbox has ended, and something in it was killed, a child of
this process lowers the limit, takes more memory than that, and is killed. Then the stand-in ends,
and the engine looks; while it does, this process is still there, so that the cgroup is.

It happens at the end, when there is nobody else who could be hit, or held up. It is no process of
the stand-in's PID namespace, which ends with that. Its program is oom_victim.c.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from typing import TYPE_CHECKING

from runsc import host
from runsc.launch import isolation

if TYPE_CHECKING:
    from runsc.cgroups.cgroup import Cgroup
    from runsc.launch.label import Label
    from runsc.oci.convert import Container

PROGRAM = os.path.join(os.path.dirname(__file__), "built", "oom_victim")
UNKILLABLE = -1000
CPU_S = 2
"""What it may use: a second is more than a kill takes."""


class Victim:
    """The process, before it is there: what it will hold."""

    def __init__(self, limits: tuple[int, ...]) -> None:
        self._limits = limits
        self._program = os.open(PROGRAM, os.O_RDONLY | os.O_CLOEXEC)
        self._opened = [self._program, *limits]
        self.told, self._hears = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """The Sentry's end: a byte to it says that a program was killed."""

    def spawn(self, life: socket.socket, joins: tuple[int, ...], label: Label) -> None:
        """Make it, in these cgroups; it holds `life` until it has done what it is there for.

        Preconditions: one thread. Raises: OSError.
        """
        if host.spawn(0) == 0:
            try:
                self._become(life, joins, label)
            finally:
                os._exit(1)

    def _become(self, life: socket.socket, joins: tuple[int, ...], label: Label) -> None:
        from runsc.cgroups.cgroup import join  # noqa: PLC0415  who opened them imported it

        isolation.leave_session()
        os.chdir("/")
        join(joins)
        label.of_profile.put_on_program()  # SELinux's policies let no container write to cgroups
        given = (self._program, self._hears.fileno(), life.fileno(), *self._limits)
        program, *fds = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in given)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        host.close_all_but({*range(len(fds)), program})
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        os.execve(program, ["runsc: oom"], {})

    def close(self) -> None:
        """The Sentry has its end, and the process is there. Again: nothing."""
        self.told.close()
        self._hears.close()
        while self._opened:
            os.close(self._opened.pop())


def prepare(container: Container, cgroup: Cgroup | None) -> Victim | None:
    """None where nobody could be killed: without a limit, or in a cgroup that is others' too."""
    memory = container.resources.memory if container.resources is not None else None
    if cgroup is None or memory is None or container.resources is None:
        return None
    if container.resources.memory_limit is None or memory.disable_oom_killer:
        return None
    if container.process.oom_score_adj <= UNKILLABLE:
        return None
    limits = cgroup.open_limits()
    return Victim(limits) if limits else None
