"""A fork of the zygote, from a connection to the program that its caller wants.

What the caller has is taken on (`traits`), its descriptors get their numbers, its death is this
one's. The zygote itself reads nothing of all that.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import importlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from array import array
from contextlib import suppress
from typing import NamedTuple

from runsc import host
from runsc.launch import early, isolation, stand_in, title
from runsc.launch.programs import Body
from runsc.zygote import place, standing, traits
from runsc.zygote.client import FDS_MAX
from runsc.zygote.protocol import ABOUT, BOUND, ENDED, GO, KEEPER, REFUSED, STANDS, TAKEN
from sentry.abi.fcntl import F_SETOWN, F_SETSIG
from sentry.abi.socket import SO_PEERPIDFD

PROGRAMS = {
    "runsc": "runsc.__main__",
    "shim": "runsc.shim.program",
    "keeper": "runsc.api.keeper",
}
"""Modules whose `carried_out` is a program: (words, pid of who has started it) to exit code."""
REQUEST_MAX = 1 << 18
REQUEST_S = 10
SPARE = 8
"""Descriptors that a fork has besides those of its caller."""
CREDENTIALS = struct.Struct("=iII")


class Request(NamedTuple):
    """What a caller wants."""

    program: str
    how: str
    numbers: tuple[int, ...]
    words: list[str]
    environment: dict[bytes, bytes]


def read(packet: bytes) -> Request:
    """Raises: traits.Unlike for what is none."""
    try:
        of, program, how, numbers, count, *rest = packet.removesuffix(b"\0").split(b"\0")
        words, variables = rest[: int(count)], rest[int(count) :]
        if program.decode() not in PROGRAMS or how.decode() not in (BOUND, STANDS, KEEPER):
            raise ValueError
        request = Request(
            program.decode(),
            how.decode(),
            tuple(map(int, numbers.split())),
            [os.fsdecode(word) for word in words],
            dict(_pair(each) for each in variables if b"=" in each[1:]),
        )
    except ValueError:
        raise traits.Unlike("that was no request") from None
    if of != place.program():
        raise traits.Unlike("it is another program's")
    return request


def _pair(variable: bytes) -> tuple[bytes, bytes]:
    name, _, value = variable.partition(b"=")
    return name, value


class Caller(NamedTuple):
    """Who has connected, or sent a packet, as the kernel says."""

    pid: int
    uid: int


def _caller(data: bytes) -> Caller:
    pid, uid, _ = CREDENTIALS.unpack(data)
    return Caller(pid, uid)


def _connected(conn: socket.socket, who: Caller) -> traits.Process:
    """Who has connected. Where only its pid is to be had that may be another process's by now,
    but that one is held from here on, and has to say "go" itself. Raises: OSError."""
    try:
        pidfd = conn.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return traits.Process(who.pid)
    return traits.Process(who.pid, pidfd)


def serve(conn: socket.socket, body: Body, about: str, telling: int) -> int:
    """The body of a fork; gives its exit code. `about`: what `runsc zygote status` shows. By
    `telling` the zygote hears that something starts."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    host.close_all_but({0, 1, 2, conn.fileno(), telling})
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    conn.settimeout(REQUEST_S)
    caller = _caller(conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    if caller.uid != os.geteuid():
        return 1
    try:
        process = _connected(conn, caller)
        traits.admit(process)
        packet, fds, _ = _received(conn)
        if packet == ABOUT:
            return _tell(conn, about)
        request = read(packet)
        parent = _ready(conn, request, fds, caller, process)
        if parent is None:
            return 1
    except (traits.Unlike, OSError) as error:
        conn.send(REFUSED + str(error).encode()[:1000])
        return 1
    with suppress(OSError):  # it has ended, or has not read for long
        os.write(telling, b"\0")
    os.close(telling)
    conn = _placed(conn, request, fds)
    early.prepare(body)
    if request.how == STANDS:
        stand_in.makers.append(standing.AskedOfCaller(conn))
    code = 1
    try:
        code = _carried_out(request, parent)
    finally:
        with suppress(OSError):
            conn.send(ENDED + b"%d" % code)
    return code


def _tell(conn: socket.socket, about: str) -> int:
    """With a pidfd of the zygote: its pid may be another's when somebody ends it."""
    zygote = int(about.split(maxsplit=1)[0])
    pidfd = os.pidfd_open(zygote)
    if os.getppid() == zygote:
        socket.send_fds(conn, [about.encode()], [pidfd])
    return 0


def _received(conn: socket.socket) -> tuple[bytes, list[int], Caller | None]:
    """A packet, its descriptors, and who has sent it."""
    room = socket.CMSG_SPACE(4 * FDS_MAX) + socket.CMSG_SPACE(CREDENTIALS.size)
    try:
        packet, control, flags, _ = conn.recvmsg(REQUEST_MAX, room, socket.MSG_CMSG_CLOEXEC)
    except OSError:  # nobody is there any more, or says nothing
        return b"", [], None
    if flags & socket.MSG_TRUNC:  # the rest of the environment is lost
        packet = b""
    fds, sender = array("i"), None
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // 4 * 4])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            sender = _caller(data)
    return packet, list(fds), sender


def _check(request: Request, fds: list[int]) -> None:
    """Whether the descriptors can have their numbers. Raises: traits.Unlike."""
    highest = max(request.numbers, default=0) + 2 * len(fds) + SPARE
    if len(fds) != len(request.numbers) + (request.how != KEEPER):
        raise traits.Unlike("descriptors are missing")
    if not 0 <= highest < resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        raise traits.Unlike("a descriptor's number is too high")


def _ready(
    conn: socket.socket, request: Request, fds: list[int], who: Caller, caller: traits.Process
) -> int | None:
    """Take on what the caller has; the pid of its parent, or None where this is not to go on.

    Raises: traits.Unlike, OSError.
    """
    try:
        traits.take_on(caller)
        _check(request, fds)
        os.environb.clear()
        os.environb.update(request.environment)
        time.tzset()
        if request.how == KEEPER:
            os.chdir("/")
        isolation.leave_session()
        own = os.pidfd_open(os.getpid())
        try:
            socket.send_fds(conn, [TAKEN], [own])
        finally:
            os.close(own)
        word, _, again = _received(conn)
        parent = caller.parent
        if request.program == "shim":  # which the caller leaves, and is known by its words
            name, arguments = (caller.read(each).strip("\n\0") for each in ("comm", "cmdline"))
            title.show(os.fsencode(name), os.fsencode(arguments))
        else:
            title.set_title("runsc", " ".join(request.words))
        return parent if word == GO and again == who and not caller.has_ended else None
    finally:
        caller.close()


def _placed(conn: socket.socket, request: Request, fds: list[int]) -> socket.socket:
    """Give descriptors the numbers that they have at the caller, whose death is ours from now on.

    The connection, which is given back, and what tells of that death are no other program's.
    """
    above = max([*request.numbers, *fds, conn.fileno()]) + 1
    kept, *given = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in (conn.fileno(), *fds))
    conn.close()
    life = given.pop(0) if request.how != KEEPER else -1
    for fd, number in zip(given, request.numbers, strict=True):
        os.dup2(fd, number)
    host.close_all_but({0, 1, 2, kept, life, *request.numbers} - {-1})
    conn = socket.socket(fileno=kept)
    conn.settimeout(None)
    os.register_at_fork(after_in_child=conn.close)
    if life >= 0:
        _die_with(life)
    return conn


def _die_with(life: int) -> None:
    """SIGKILL when the other end of a pipe is closed: fcntl(2), F_SETSIG."""
    fcntl.fcntl(life, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(life, 0)
    if poll.poll(0):  # it was before
        os.kill(os.getpid(), signal.SIGKILL)


def _carried_out(request: Request, parent: int) -> int:
    """What the program does; its exit code."""
    gc.enable()
    sys.argv = [request.program, *request.words]
    program = importlib.import_module(PROGRAMS[request.program])
    try:
        code: int = program.carried_out(request.words, parent)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    return code
