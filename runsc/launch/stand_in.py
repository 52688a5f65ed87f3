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
from typing import Protocol

import msgspec

from runsc import host
from runsc.errors import RuntimeFailure
from runsc.launch import isolation, loopback, users, view
from runsc.launch.label import Label
from runsc.launch.oom_victim import Victim
from runsc.launch.view import View
from runsc.oci.convert import Container
from runsc.oci.exports import Users
from sentry.abi import mount
from sentry.abi.ioctl import TIOCSCTTY
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_PARENT,
)
from sentry.config import Extents

PROGRAM = os.path.join(os.path.dirname(__file__), "built", "stand_in")
LIFE_FD = 3
KINDS = {
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "pid": CLONE_NEWPID,
    "cgroup": CLONE_NEWCGROUP,
    "user": CLONE_NEWUSER,
}
"""In this order they are joined: who is in a user namespace may join only what belongs to it."""


class Namespaces(msgspec.Struct, frozen=True):
    """What config.json asks for."""

    new: int = CLONE_NEWNS
    """CLONE_NEW* of those without a path, and one of mounts in any case: nobody who enters it, as
    `podman cp` does, may find the host's files there."""
    view: View | None = None
    """What is found there."""
    joined: tuple[tuple[str, str], ...] = ()
    """(type, path) of those with one."""
    first: tuple[tuple[str, str], ...] = ()
    """Those that the process has to be made in: only a child can be in a PID namespace, and what
    it makes for itself is to belong to the user namespace that it is in."""
    users: Users | None = None
    """Where not the caller's; an ordinary user has a namespace of its own in any case."""
    hostname: str = ""
    """Of a new UTS namespace."""
    sysctls: tuple[tuple[str, str], ...] = ()
    """Of the network namespace, name and value: who makes sockets in it heeds them, and the host,
    of whose addresses and routes there a stack of the sandbox's own has its."""
    label: Label = Label()

    @property
    def come_first(self) -> bool:
        """Whether the Gofer may begin only when the process is in them. What config.json names may
        not be there: then no program runs. And in the container's root the process makes places of
        mounts that are missing, as the Sentry does, which expects nobody else there."""
        return self.view is not None or bool(self.joined)


def asked_for(
    container: Container, label: Label, sysctls: tuple[tuple[str, str], ...] = ()
) -> Namespaces:
    """Of config.json. An ordinary user, in a user namespace of its own, can join none.

    `sysctls`: those that the container's own network namespace gets.
    """
    new, paths, users = CLONE_NEWNS, dict(container.namespaces), container.users
    for name, path in container.namespaces:
        if not path and (name != "user" or users is not None):
            new |= KINDS.get(name, 0)
    if not isolation.is_privileged():
        return Namespaces(new, hostname=container.hostname, label=label)
    joined = [(name, paths[name]) for name in KINDS if paths.get(name)]
    first = [each for each in joined if users is not None or each[0] == "pid"]
    joined = [each for each in joined if each not in first]
    if "network" not in dict(container.namespaces):
        sysctls = ()
    of_network = tuple(each for each in sysctls if each[0].startswith("net."))
    return Namespaces(
        new,
        view.of(container),
        tuple(joined),
        tuple(first),
        users,
        container.hostname,
        of_network,
        label,
    )


class StandIn:
    """The process, seen from the command line."""

    def __init__(
        self, pid: int, life: socket.socket, joins: tuple[int, ...], victim: Victim | None
    ) -> None:
        self.pid = pid
        self.joins = joins
        """Its cgroups, open, for the others."""
        self._reaped = self._is_ready = False
        self.comes_first = True
        """`Namespaces.come_first`."""
        self.life = life
        """The Sentry's end, after `await_ready`."""
        self.victim = victim
        self.entrance: users.Entrance | None = None
        """To the user namespace of the container, where that is not the caller's."""
        self.maps: tuple[Extents, Extents] = ((), ())
        """Its users and groups."""

    def await_ready(self) -> None:
        """Until it is in its namespaces. Raises: RuntimeFailure."""
        if self._is_ready:
            return
        said = self.life.recv(4096)
        if said != b"\0":
            self.end()
            raise RuntimeFailure(said.decode(errors="replace") or "the stand-in process has ended")
        self._is_ready = True

    def close(self) -> None:
        """The Sentry has its ends, the Gofer the namespace."""
        self.life.close()
        if self.entrance is not None:
            os.close(self.entrance.fd)
            self.entrance = None
        if self.victim is not None:
            self.victim.close()

    def check(self) -> None:
        """Raises: RuntimeFailure if it has ended."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            raise RuntimeFailure("the stand-in process has ended")

    def end(self) -> int:
        """Whatever it waits for. Its status: as the container's, if it had ended."""
        self.close()
        if self._reaped:
            return 0
        with suppress(PermissionError):  # its label forbids it; it ends as nobody is there
            os.kill(self.pid, signal.SIGKILL)
        return self.reap()

    def reap(self) -> int:
        """It ends by itself, for the container has ended; its status."""
        status = os.waitpid(self.pid, 0)[1]
        self._reaped = True
        return status


class Maker(Protocol):
    """Somebody else whose child it is to be."""

    kind: type[StandIn]

    def __call__(
        self,
        namespaces: Namespaces,
        container_id: str,
        life: socket.socket,
        joins: tuple[int, ...],
        terminal: int,
    ) -> int:
        """As `fork`."""


makers: list[Maker] = []
"""At most one: runsc/zygote/standing.py."""


def spawn(
    namespaces: Namespaces,
    container_id: str,
    joins: tuple[int, ...],
    victim: Victim | None = None,
    terminal: int = -1,
) -> StandIn:
    """Make it. `terminal`: it tells the Sentry of new sizes of that, which is nobody else's.

    Raises: RuntimeFailure.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    make = makers[0] if makers else fork
    pid = make(namespaces, container_id, theirs, joins, terminal)
    theirs.close()
    if victim is not None:
        victim.spawn(ours, joins, namespaces.label)
    made = (makers[0].kind if makers else StandIn)(pid, ours, joins, victim)
    made.comes_first = namespaces.come_first
    if namespaces.users is not None:
        try:
            made.maps = users.settle(pid, namespaces.users)
            uid, gid = map(users.root_of, made.maps)
            fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            made.entrance = users.Entrance(fd, uid, gid)
            ours.send(f"{uid} {gid}".encode())
        except OSError as error:
            made.end()
            why = (error.strerror or str(error)).lower()
            raise RuntimeFailure(f"user namespace: {why}") from None
    return made


def fork(
    namespaces: Namespaces,
    container_id: str,
    life: socket.socket,
    joins: tuple[int, ...],
    terminal: int,
) -> int:
    """The process, a child of this one; its pid. Raises: RuntimeFailure."""
    flags = namespaces.new & ~CLONE_NEWCGROUP

    def body() -> int:
        isolation.leave_session()
        if terminal >= 0:
            with suppress(OSError):  # new sizes are then seen late
                fcntl.ioctl(terminal, TIOCSCTTY, 0)
        return _become(namespaces, container_id, life, joins)

    if namespaces.first:
        return _spawn_in(namespaces.first, body, flags)
    return isolation.spawn(body, flags)


def _spawn_in(first: tuple[tuple[str, str], ...], body: Callable[[], int], flags: int) -> int:
    """In namespaces that are there, by a process that enters them for its children, which are
    ours: who forks the stand-in is who waits for it. Raises: RuntimeFailure."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper = host.spawn(0)
    if not helper:
        said = ""
        try:
            _join(first)
            said = str(isolation.spawn_here(body, flags | CLONE_PARENT))
        except OSError as error:
            said = error.strerror or str(error)
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
        paths = ", ".join(path for _, path in first)
        raise RuntimeFailure(said or f"namespace {paths}: nobody could enter it")
    return int(said)


def _become(
    namespaces: Namespaces,
    container_id: str,
    life: socket.socket,
    joins: tuple[int, ...],
) -> int:
    """The body of the process until it is its program; gives its exit code."""
    try:
        program = os.open(PROGRAM, os.O_RDONLY | os.O_CLOEXEC)
        if joins:
            from runsc.cgroups.cgroup import join  # noqa: PLC0415  who opened them imported it

            join(joins)
        if namespaces.new & CLONE_NEWCGROUP:  # its root is where it is by now
            host.unshare(CLONE_NEWCGROUP)
        namespaces.label.put_on_program()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        # nobody's locks, and not the other end: of that the end is heard
        host.close_all_but({0, 1, 2, life.fileno(), program})
        if namespaces.users is not None:
            uid, gid = life.recv(64).split()  # its ids are mapped
            users.become(int(uid), int(gid))
        _enter(namespaces)
        if life.fileno() != LIFE_FD:
            if program == LIFE_FD:
                program = fcntl.fcntl(program, fcntl.F_DUPFD_CLOEXEC, LIFE_FD + 1)
            os.dup2(life.fileno(), LIFE_FD)
        os.set_inheritable(LIFE_FD, True)
        namespaces.label.execute(program, f"runsc: {container_id}")
    except OSError as error:
        with suppress(OSError):
            life.send((error.strerror or str(error)).encode())
    return 1


def _join(paths: tuple[tuple[str, str], ...]) -> None:
    for name, path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            host.setns(fd, KINDS[name])
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise OSError(error.errno, f"{name} namespace {path}: {why}") from None
        os.close(fd)


def _enter(namespaces: Namespaces) -> None:
    _join(namespaces.joined)
    if namespaces.new & CLONE_NEWNET:
        loopback.bring_up()
    if namespaces.new & CLONE_NEWUTS and namespaces.hostname:
        socket.sethostname(namespaces.hostname)
    for name, value in namespaces.sysctls:
        try:
            with open(f"/proc/sys/{name.replace('.', '/')}", "w", encoding="utf-8") as file:
                file.write(value)
        except OSError as error:
            raise OSError(error.errno, f"sysctl {name}: {(error.strerror or '').lower()}") from None
    host.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    view.enter(namespaces.view, has_processes=bool(namespaces.new & CLONE_NEWPID))
