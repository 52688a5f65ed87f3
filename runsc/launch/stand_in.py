"""The process that stands for a container on the host: what engines watch, and plug networks into.

Programs of a container are no processes of the host, so this one has the pid that `state`, the pid
file and hooks give. It is in the namespaces that config.json makes or names, does nothing, and ends
with the status of the container's first process, or as if killed when the sandbox is gone. When it
is killed, so is the container. Its program is stand_in.c.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from runsc import host
from runsc.errors import RuntimeFailure
from runsc.launch import isolation
from runsc.launch.oom_victim import Victim
from runsc.oci.convert import Container
from sentry.abi import mount
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    CLONE_PARENT,
)

PROGRAM = Path(__file__).with_name("built") / "stand_in"
LIFE_FD = 3
KINDS = {
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "pid": CLONE_NEWPID,
    "cgroup": CLONE_NEWCGROUP,
}


class Namespaces(msgspec.Struct, frozen=True):
    """What config.json asks for."""

    new: int = CLONE_NEWNS
    """CLONE_NEW* of those without a path, and one of mounts in any case: nobody who enters it, as
    `podman cp` does, may find the host's files there."""
    joined: tuple[tuple[str, str], ...] = ()
    """(type, path) of those with one."""
    joined_pid: str = ""
    """The path of a PID namespace: only a child can be in it."""
    hostname: str = ""
    """Of a new UTS namespace."""
    sysctls: tuple[tuple[str, str], ...] = ()
    """Of the network namespace, name and value: who makes sockets in it heeds them."""


def asked_for(container: Container, sysctls: tuple[tuple[str, str], ...] = ()) -> Namespaces:
    """Of config.json. An ordinary user, in a user namespace of its own, can join none.

    `sysctls`: those that the container's own network namespace gets.
    """
    new, joined, joined_pid = CLONE_NEWNS, [], ""
    for name, path in container.namespaces:
        kind = KINDS.get(name, 0)
        if not path:
            new |= kind
        elif kind == CLONE_NEWPID:
            joined_pid = path
        elif kind:
            joined.append((name, path))
    if not isolation.is_privileged():
        return Namespaces(new, hostname=container.hostname)
    if "network" not in dict(container.namespaces):
        sysctls = ()
    of_network = tuple(each for each in sysctls if each[0].startswith("net."))
    return Namespaces(new, tuple(joined), joined_pid, container.hostname, of_network)


class StandIn:
    """The process, seen from the command line."""

    def __init__(
        self, pid: int, life: socket.socket, joins: tuple[int, ...], victim: Victim | None
    ) -> None:
        self.pid = pid
        self.joins = joins
        """Its cgroups, open, for the others."""
        self._reaped = False
        self.life = life
        """The Sentry's end, after `await_ready`."""
        self.victim = victim

    def await_ready(self) -> None:
        """Until it is in its namespaces. Raises: RuntimeFailure."""
        said = self.life.recv(4096)
        if said != b"\0":
            self.end()
            raise RuntimeFailure(said.decode(errors="replace") or "the stand-in process has ended")

    def close(self) -> None:
        """The Sentry has its ends."""
        self.life.close()
        if self.victim is not None:
            self.victim.close()

    def check(self) -> None:
        """Raises: RuntimeFailure if it has ended."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            raise RuntimeFailure("the stand-in process has ended")

    def end(self) -> None:
        """Whatever it waits for."""
        self.close()
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()

    def reap(self) -> int:
        """It ends by itself, for the container has ended; its status."""
        status = os.waitpid(self.pid, 0)[1]
        self._reaped = True
        return status


def spawn(
    namespaces: Namespaces,
    container_id: str,
    joins: tuple[int, ...],
    victim: Victim | None = None,
) -> StandIn:
    """Make it. Raises: RuntimeFailure."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    flags = namespaces.new & ~CLONE_NEWCGROUP

    def body() -> int:
        return _become(namespaces, container_id, (ours, theirs), joins, victim)

    if namespaces.joined_pid:
        pid = _spawn_in(namespaces.joined_pid, body, flags)
    else:
        pid = isolation.spawn(body, flags)
    theirs.close()
    return StandIn(pid, ours, joins, victim)


def _spawn_in(path: str, body: Callable[[], int], flags: int) -> int:
    """In a PID namespace that is there, by a process that enters it for its children, which are
    ours: who forks the stand-in is who waits for it. Raises: RuntimeFailure."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper = host.spawn(0)
    if not helper:
        said = ""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            host.setns(fd, CLONE_NEWPID)
            os.close(fd)
            said = str(isolation.spawn(body, flags | CLONE_PARENT))
        except OSError as error:
            said = f"pid namespace {path}: {os.strerror(error.errno or 0)}"
        except RuntimeFailure as error:
            said = str(error)
        finally:
            theirs.send(said.encode())
            os._exit(0)
    theirs.close()
    said = ours.recv(4096).decode()
    ours.close()
    os.waitpid(helper, 0)
    if not said.isdigit():
        raise RuntimeFailure(said or f"pid namespace {path}: nobody could enter it")
    return int(said)


def _become(
    namespaces: Namespaces,
    container_id: str,
    ends: tuple[socket.socket, socket.socket],
    joins: tuple[int, ...],
    victim: Victim | None,
) -> int:
    """The body of the process until it is its program; gives its exit code."""
    sentry, life = ends
    try:
        isolation.leave_session()
        program = os.open(PROGRAM, os.O_RDONLY | os.O_CLOEXEC)
        if joins:
            from runsc.cgroups.cgroup import join  # noqa: PLC0415  who opened them imported it

            join(joins)
        if namespaces.new & CLONE_NEWCGROUP:  # its root is where it is by now
            host.unshare(CLONE_NEWCGROUP)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        _enter(namespaces)
        if victim is not None:
            victim.spawn(sentry)
        if life.fileno() != LIFE_FD:
            if program == LIFE_FD:
                program = fcntl.fcntl(program, fcntl.F_DUPFD_CLOEXEC, LIFE_FD + 1)
            os.dup2(life.fileno(), LIFE_FD)
        os.set_inheritable(LIFE_FD, True)
        host.close_all_but({0, 1, 2, LIFE_FD, program})
        os.execve(program, [f"runsc: {container_id}"], {})
    except OSError as error:
        with suppress(OSError):
            life.send((error.strerror or str(error)).encode())
    return 1


def _enter(namespaces: Namespaces) -> None:
    for name, path in namespaces.joined:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            host.setns(fd, KINDS[name])
        except OSError as error:
            raise OSError(error.errno, f"{name} namespace {path}: {error.strerror}") from None
        os.close(fd)
    if namespaces.new & CLONE_NEWNET:
        isolation.bring_up_loopback()
    if namespaces.new & CLONE_NEWUTS and namespaces.hostname:
        socket.sethostname(namespaces.hostname)
    for name, value in namespaces.sysctls:
        try:
            Path("/proc/sys", name.replace(".", "/")).write_text(value)
        except OSError as error:
            raise OSError(error.errno, f"sysctl {name}: {error.strerror}") from None
    host.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    isolation.leave_root()
