"""--pod-init-config, `runsc trace create --config`: who listens to a sandbox, read and connected.

The Sentry may connect to nobody. So the sinks of a session are opened here, gVisor's "remote" with
the words that both sides say first, and their descriptors are handed over.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec

from runsc.containers.durations import seconds
from runsc.errors import RuntimeFailure
from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.protobuf import decode, encode
from sentry.watch.messages import Handshake

MAX_BYTES: Final = 4 << 20
"""Of a file."""
MAX_SINKS: Final = 16
VERSIONS: Final = (1, 2)
"""Of gVisor's wire, with the same header and the same messages. Some listeners take one of them
alone, and close the connection that says another."""
PATIENCE_S: Final = 5.0
"""For a listener's first words."""
UNIX: Final = "unix:"
FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""Of what takes lines: it must not hold up the sandbox."""


class _Point(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    optional_fields: list[str] = []
    context_fields: list[str] = []


class _Sink(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    config: dict[str, Any] = {}
    ignore_setup_error: bool = False
    status: Any = None


class _Session(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    points: list[_Point] = []
    ignore_missing: bool = False
    sinks: Annotated[list[_Sink], msgspec.Meta(max_length=MAX_SINKS)] = []


class _InitConfig(msgspec.Struct):
    trace_session: _Session


class _Remote(msgspec.Struct, forbid_unknown_fields=True):
    endpoint: str
    retries: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    backoff: str = "25us"
    backoff_max: str = "10ms"


class _Json(msgspec.Struct, forbid_unknown_fields=True):
    path: str


class Wanted(msgspec.Struct, frozen=True):
    """A session as a file has it."""

    session: TraceSession
    sinks: tuple[_Sink, ...]


class Connected(msgspec.Struct, frozen=True):
    """A session whose sinks are open; the descriptors are the caller's to close."""

    session: TraceSession
    fds: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    """What went wrong, and was to be ignored."""

    def close(self) -> None:
        """They have been handed over."""
        for fd in self.fds:
            os.close(fd)


def read(path: str) -> Wanted:
    """A session, by itself or as `trace_session` of a file for --pod-init-config.

    Raises: RuntimeFailure.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    if len(data) > MAX_BYTES:
        raise RuntimeFailure(f"{path}: more than {MAX_BYTES} bytes")
    try:
        whole = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        if "trace_session" in whole:
            found = msgspec.json.decode(data, type=_InitConfig).trace_session
        else:
            found = msgspec.json.decode(data, type=_Session)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RuntimeFailure(f"{path}: {error}") from None
    points = tuple(
        TracePoint(each.name, tuple(each.optional_fields), tuple(each.context_fields))
        for each in found.points
    )
    session = TraceSession(found.name or "Default", points, ignore_missing=found.ignore_missing)
    for sink in found.sinks:
        _described(sink)
    return Wanted(session, tuple(found.sinks))


def connect(wanted: Wanted) -> Connected:
    """Open its sinks. Raises: RuntimeFailure; then none is open."""
    sinks, fds, warnings = [], [], []
    try:
        for spec in wanted.sinks:
            sink = _described(spec)
            try:
                fd = _opened(spec)
            except (OSError, ValueError) as error:
                why = f"sink {spec.name}: {_reason(error)}"
                if not spec.ignore_setup_error:
                    raise RuntimeFailure(why) from None
                warnings.append(f"{why}: ignored")
                fd = None
            if fd is not None:
                fds.append(fd)
            sinks.append(msgspec.structs.replace(sink, has_fd=fd is not None))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    session = msgspec.structs.replace(wanted.session, sinks=tuple(sinks))
    return Connected(session, tuple(fds), tuple(warnings))


def _described(spec: _Sink) -> TraceSink:
    """What the Sentry has to know of it. Raises: RuntimeFailure."""
    try:
        if spec.name == "remote":
            config = msgspec.convert(spec.config, _Remote, strict=False)
            first, most = seconds(config.backoff), seconds(config.backoff_max)
            if first > most:
                raise RuntimeFailure(
                    f"initial backoff ({config.backoff}) cannot be larger than max backoff"
                    f" ({config.backoff_max})"
                )
            return msgspec.convert(
                {"name": spec.name, "retries": config.retries,
                 "backoff_ns": max(1, round(first * 1e9)),
                 "backoff_max_ns": max(1, round(most * 1e9))}, TraceSink,
            )  # fmt: skip
        if spec.name == "json":
            msgspec.convert(spec.config, _Json)
            return TraceSink(spec.name)
    except (msgspec.ValidationError, OverflowError) as error:
        raise RuntimeFailure(f"sink {spec.name}: {error}") from None
    if spec.name == "null":
        return TraceSink(spec.name)
    raise RuntimeFailure(f'sink "{spec.name}" not found: there are json, null and remote')


def _opened(spec: _Sink) -> int | None:
    """Its descriptor. Raises: OSError, ValueError."""
    if spec.name == "remote":
        return greeted(spec.config["endpoint"])
    if spec.name == "null":
        return None
    path = spec.config["path"]
    if path == "-":
        return _standard_error()
    if path.startswith(UNIX):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(path.removeprefix(UNIX))
            return _handed_on(sock)
    return os.open(path, os.O_CREAT | FLAGS, 0o600)


def _standard_error() -> int:
    """Opened anew where that is possible, so that it never blocks: a terminal that stands still
    would hold up the sandbox, and so would another writer of a pipe. The flags of the caller's
    own stay as they are."""
    try:
        return os.open("/proc/self/fd/2", FLAGS)
    except OSError:  # a socket, which is asked not to block each time, or another user's
        return os.dup(2)


def greeted(path: str) -> int:
    """A listener of gVisor's wire, with whom a version is agreed on.

    Raises: OSError, ValueError.
    """
    for version in VERSIONS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(path)
            sock.send(encode(Handshake(version)))
            with suppress(ConnectionError):
                answer = sock.recv(10240)
                if answer:
                    _check(answer)
                    return _handed_on(sock)
    raise ValueError(f"{path}: the listener wants no version of the wire that there is here")


def _check(answer: bytes) -> None:
    version = decode(Handshake, answer).version
    if version < VERSIONS[0]:
        raise ValueError(
            f"remote version ({version}) is smaller than minimum supported ({VERSIONS[0]})"
        )


def _handed_on(sock: socket.socket) -> int:
    sock.setblocking(False)
    return sock.detach()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the listener does not answer"
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
