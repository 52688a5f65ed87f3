"""systemd's manager over D-Bus: org.freedesktop.systemd1(5). For --systemd-cgroup.

root talks to the system's, others to their own, and so does root of a user namespace. jeepney, an
extra, speaks the protocol, and is imported here alone, when a command needs it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from runsc.cgroups.units import Property
from runsc.errors import RuntimeFailure

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = f"{NAME}.Manager"
RUNNING = "/run/systemd/system"
"""A directory where systemd is the init: sd_booted(3)."""
TIMEOUT_S = 30.0
SIGNALS = 1024
"""Ends of others' jobs that may come meanwhile."""


class BusError(RuntimeFailure):
    """What systemd, or the bus, answered instead. `name` is D-Bus's."""

    def __init__(self, method: str, name: str, text: str) -> None:
        super().__init__(f"systemd: {method}: {text or name}")
        self.name = name


def check() -> None:
    """Raises: RuntimeFailure where there is no systemd, or nobody to speak to it."""
    if not os.path.isdir(RUNNING):
        raise RuntimeFailure("systemd not running on this host, cannot use systemd cgroups manager")
    if not can_ask():
        raise RuntimeFailure("--systemd-cgroup needs jeepney: install runsc[systemd]")


def can_ask() -> bool:
    """Whether the extra is installed."""
    try:
        import jeepney  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def asks_the_systems() -> bool:
    """Whether the manager that we ask is the system's. Raises: RuntimeFailure, as `check`.

    Root of a user namespace owns nothing of the host's (engines without root), but all of a
    machine that has a systemd of its own in there.
    """
    check()
    return os.geteuid() == 0 and os.stat(RUNNING).st_uid == 0


def control_group() -> str:
    """Where the cgroups lie that our own manager has; the system's has all."""
    if asks_the_systems():
        return ""
    with _connected() as bus:
        return str(bus.property("ControlGroup")).rstrip("/")


def start(unit: str, properties: Iterable[Property]) -> None:
    """Make a transient scope; it is there, with its processes, afterwards. Raises: RuntimeFailure.

    One of that name that has failed may be left of before: it is forgotten.
    """
    with _connected() as bus:
        try:
            result = bus.job("StartTransientUnit", "ssa(sv)a(sa(sv))", _new(unit, properties))
        except BusError as error:
            if error.name != f"{NAME}.UnitExists":
                raise
            bus.forget(unit)
            result = bus.job("StartTransientUnit", "ssa(sv)a(sa(sv))", _new(unit, properties))
        if result != "done":
            bus.forget(unit)
            raise RuntimeFailure(f"error creating systemd unit `{unit}`: got `{result}`")


def _new(unit: str, properties: Iterable[Property]) -> tuple[object, ...]:
    return unit, "replace", list(properties), []


def change(unit: str, properties: list[Property]) -> None:
    """Set properties until it ends. Raises: RuntimeFailure."""
    if properties:
        with _connected() as bus:
            bus.call("SetUnitProperties", "sba(sv)", (unit, True, properties))


def stop(unit: str) -> None:
    """End it; no error if it is gone, as it is when its last process is. Raises: RuntimeFailure."""
    with _connected() as bus:
        try:
            bus.job("StopUnit", "ss", (unit, "replace"))
        except BusError as error:
            if error.name != f"{NAME}.NoSuchUnit":
                raise
        bus.forget(unit)


class _Bus:
    """A connection."""

    def __init__(self, connection: Any) -> None:
        import jeepney  # noqa: PLC0415

        self._connection = connection
        self._jeepney = jeepney
        self._manager = jeepney.DBusAddress(PATH, NAME, MANAGER)

    def call(self, method: str, signature: str, arguments: tuple[object, ...]) -> Any:
        """The answer's values."""
        message = self._jeepney.new_method_call(self._manager, method, signature, arguments)
        return self._answer(method, message)

    def _answer(self, method: str, message: Any) -> Any:
        try:
            reply = self._connection.send_and_get_reply(message, timeout=TIMEOUT_S)
        except (OSError, EOFError) as error:  # TimeoutError is one
            raise RuntimeFailure(f"systemd: {method}: {error or 'no answer'}") from None
        if reply.header.message_type is self._jeepney.MessageType.error:
            name = str(reply.header.fields.get(self._jeepney.HeaderFields.error_name, ""))
            text = str(reply.body[0]) if reply.body else ""
            raise BusError(method, name, text)
        return reply.body

    def property(self, name: str) -> object:
        """One of the manager's."""
        message = self._jeepney.Properties(self._manager).get(name)
        return self._answer(name, message)[0][1]

    def job(self, method: str, signature: str, arguments: tuple[object, ...]) -> str:
        """Start a job and wait for its end; how it ended ("done")."""
        rule = self._jeepney.MatchRule(
            type="signal", interface=MANAGER, member="JobRemoved", path=PATH
        )
        self._answer(method, self._jeepney.message_bus.AddMatch(rule))
        with self._connection.filter(rule, bufsize=SIGNALS) as ended:
            (job,) = self.call(method, signature, arguments)
            while True:
                try:
                    signal = self._connection.recv_until_filtered(ended, timeout=TIMEOUT_S)
                except (OSError, EOFError) as error:
                    raise RuntimeFailure(f"systemd: {method}: {error or 'no answer'}") from None
                _, path, _, result = signal.body
                if path == job:
                    return str(result)

    def forget(self, unit: str) -> None:
        """A failed unit stays known until this."""
        try:
            self.call("ResetFailedUnit", "s", (unit,))
        except BusError:
            return


@contextmanager
def _connected() -> Iterator[_Bus]:
    check()
    try:
        connection = _open(_address())
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise RuntimeFailure(f"cannot reach systemd over D-Bus: {error}") from None
    try:
        yield _Bus(connection)
    finally:
        connection.close()


def _open(address: str) -> Any:
    """A connection of jeepney's. Raises: OSError and ValueError.

    We do not say who we are, which would be another number for the bus if we are in a user
    namespace: it looks at the socket (D-Bus specification, EXTERNAL).
    """
    from jeepney.bus import get_bus  # noqa: PLC0415
    from jeepney.io.blocking import DBusConnection  # noqa: PLC0415

    bus = socket.socket(socket.AF_UNIX)
    try:
        bus.settimeout(TIMEOUT_S)
        bus.connect(get_bus(address))
        bus.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
        said = [_line(bus), _line(bus)]
        if said[0] != b"DATA" or not said[1].startswith(b"OK "):
            raise ConnectionRefusedError(f"the bus said {said}")
        bus.sendall(b"BEGIN\r\n")
        bus.settimeout(None)
        return DBusConnection(bus)
    except BaseException:
        bus.close()
        raise


def _line(bus: socket.socket) -> bytes:
    """Nothing comes behind the last one before we have answered, and no long one."""
    line = b""
    while not line.endswith(b"\r\n"):
        byte = bus.recv(1)
        if not byte or len(line) > 1024:
            raise ConnectionResetError("the bus has hung up")
        line += byte
    return line.removesuffix(b"\r\n")


def _address() -> str:
    """Of the bus: the system's for root, else that of the user's manager."""
    if asks_the_systems():
        return "SYSTEM"
    if "DBUS_SESSION_BUS_ADDRESS" in os.environ:
        return "SESSION"
    return f"unix:path={os.environ.get('XDG_RUNTIME_DIR', f'/run/user/{os.geteuid()}')}/bus"
