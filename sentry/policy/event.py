"""`Event`: what a handler of a policy is told of a call. Copies, and what the kernel has found."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from sentry.policy.places import path_of_file

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.policy.layer import Layer
    from sentry.vfs.location import Location

MAX_PARENTS: Final = 16


class Event:
    """A call, or an object that it has come to. Who makes it is looked up when it is asked for."""

    path = ""
    """Of a file: where it was mounted first, whatever a program has mounted, linked or changed its
    root to."""
    changed = False
    """The arguments are what a handler has changed them to."""
    flags = 0
    """open: O_*."""
    writes = False
    creates = False
    argv: Sequence[str] = ()
    """exec: of the program; empty of interpreters and loaders."""
    hash = ""
    """exec: SHA-256, if a rule has one."""
    number: int | None = None
    """Of an address of IP: as of IPv6."""
    port = 0
    protocol = ""
    """tcp, udp, icmp, or a number."""
    raw_family = b""
    unix = ""
    """The path or name of a Unix socket."""

    def __init__(
        self, layer: Layer, task: Task, values: tuple[Any, ...], kind: str
    ) -> None:
        self._task = task
        self._layer = layer
        self._values = values
        self.kind = kind
        """call, open, exec, address, path."""

    @property
    def call(self) -> str:
        """Its name."""
        return self._layer.declaration.name

    @property
    def family(self) -> str:
        """address: inet, inet6, unix, or a number."""
        if self.kind != "address":
            return ""
        if self.unix:
            return "unix"
        if self.number is None:
            return str(int.from_bytes(self.raw_family, "little"))
        return "inet" if self.number >> 32 == 0xFFFF else "inet6"

    @property
    def address(self) -> str:
        """Where to: of IP, of a Unix socket its path or @name."""
        return self.unix if self.number is None else address_text(self.number)

    @property
    def task(self) -> Task:
        """Who makes the call: the kernel's own object, of no use to a policy."""
        return self._task

    @property
    def pid(self) -> int:
        """The process, as the first PID namespace has it."""
        return self._task.group.tgid

    @property
    def tid(self) -> int:
        """The thread."""
        return self._task.tid

    @property
    def uid(self) -> int:
        """Its effective user, as the container has it."""
        return self._task.creds.euid

    @property
    def gid(self) -> int:
        """Its effective group."""
        return self._task.creds.egid

    @property
    def comm(self) -> str:
        """The thread's name, which programs choose."""
        return self._task.comm.decode(errors="surrogateescape")

    @property
    def container(self) -> str:
        """Its id."""
        return self._task.group.container.id

    @property
    def program(self) -> str:
        """The path of the process's program."""
        return self._program_of(self._task.group)

    @property
    def parents(self) -> list[str]:
        """The programs of its parent, of its parent's parent, and so on."""
        found: list[str] = []
        group = self._task.group.parent
        while group is not None and len(found) < MAX_PARENTS:
            found.append(self._program_of(group))
            group = group.parent
        return found

    def _program_of(self, group: Any) -> str:
        exe: Location | None = group.exe
        if exe is None:
            return ""
        return path_of_file(self._task, exe.mount, exe.dentry)

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by their names, as they were decoded: numbers, and paths as bytes; None is
        what is read later."""
        return {
            name: _shown(value)
            for (name, _), value in zip(self._layer.declaration.args, self._values, strict=True)
        }

    def __str__(self) -> str:
        what = self.path
        if self.kind == "address":
            what = f"{self.address}:{self.port}" if self.port else self.address
        return f"{self.call} {what}".rstrip()


def address_text(number: int) -> str:
    """An address of IP, as it is written."""
    if number >> 32 == 0xFFFF:
        return socket.inet_ntop(socket.AF_INET, (number & 0xFFFFFFFF).to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, (int, bytes)):
        return value
    path = getattr(value, "path", None)
    return path if isinstance(path, bytes) else None
