"""What workers do: calls of the runtime as a library, one for each kind of request."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from runsc.containers import lifecycle
from runsc.containers.container import Store
from runsc.containers.processes import start_time
from runsc.errors import NotRunning, RuntimeFailure
from runsc.shim import options, rootfs
from runsc.shim.messages import Mount
from runsc.shim.options import Settings
from runsc.shim.streams import CONSOLE, Streams, open_streams
from runsc.shim.ttrpc import Code, Refused
from runsc.shim.workers import Report
from sentry.protobuf import encode

if TYPE_CHECKING:
    from runsc.containers.execution import Process

CONSOLE_S = 10.0
"""How long a terminal that was made may take to arrive: it has been sent already."""


class Create(msgspec.Struct, frozen=True):
    """A container to be made."""

    id: str
    bundle: str
    namespace: str
    settings: Settings
    streams: Streams
    mounts: tuple[tuple[str, str, str, tuple[str, ...]], ...] = ()
    checkpoint: str = ""
    """The folder of a snapshot that it begins with."""


class Exec(msgspec.Struct, frozen=True):
    """A process to be added to one."""

    id: str
    namespace: str
    settings: Settings
    streams: Streams
    spec: bytes


class Kept(msgspec.Struct, frozen=True):
    """What a worker gives of streams: names of the descriptors that come with it, in order."""

    pid: int = 0
    names: tuple[str, ...] = ()
    began: int = 0
    """When its process on the host has: `processes.began`."""


def store_of(settings: Settings) -> Store:
    """Where it is noted which containers there are."""
    return Store(settings.root)


def warn(message: str) -> None:
    """To the log of the shim."""
    from runsc.log import Log  # noqa: PLC0415  seldom

    Log(None, "text", False).warning(message)


def create(job: Create, report: Report) -> None:
    """Mount its root, open its streams, make it."""
    from runsc.launch import bundle as bundles  # noqa: PLC0415  not of a shim that waits
    from runsc.launch import launch  # noqa: PLC0415
    from runsc.launch.configure import Wishes  # noqa: PLC0415

    flags, image = job.settings.globals(), job.checkpoint or None
    options.save(job.bundle, job.settings)
    rootfs.mount(job.bundle, [Mount(*each[:3], list(each[3])) for each in job.mounts])
    try:
        opened = open_streams(job.streams, job.id, job.namespace, copied=False)
        identity, container = bundles.understood(flags, job.bundle, job.id)
        _check_terminal(container.process.terminal, job.streams)
        if job.streams.terminal:
            with _Console(job.bundle) as console:
                wishes = Wishes(detach=True, console_socket=console.path, image=image)
                launch.create(flags, identity, container, wishes)
                opened.kept[CONSOLE] = console.receive()
        else:
            stdio = (opened.program[0], opened.program[1], opened.program[2])
            wishes = Wishes(detach=True, stdio=stdio, image=image)
            launch.create(flags, identity, container, wishes)
    except BaseException:
        rootfs.unmount(job.bundle)
        raise
    state = store_of(job.settings).load(job.id)
    kept = Kept(state.pid, tuple(opened.kept), state.pid_start)
    report(kept, list(opened.kept.values()))


def _check_terminal(in_bundle: bool, streams: Streams) -> None:
    if in_bundle != streams.terminal:
        text = f"process.terminal of config.json is {in_bundle}, the request's {streams.terminal}"
        raise Refused(Code.INVALID_ARGUMENT, text)


class _Console:
    """The socket to which the library sends the other end of a terminal."""

    def __init__(self, bundle: str) -> None:
        self.path = os.path.join(bundle, "console.sock")
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> _Console:
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        folder = os.open(os.path.dirname(self.path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # unix(7): the whole path may be too long for sun_path
            self._sock.bind(f"/proc/self/fd/{folder}/{os.path.basename(self.path)}")
        finally:
            os.close(folder)
        self._sock.listen(1)
        self._sock.settimeout(CONSOLE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        os.unlink(self.path)

    def receive(self) -> int:
        """The terminal."""
        sock, _ = self._sock.accept()
        with sock:
            fds = socket.recv_fds(sock, 4096, 1)[1]
        if not fds:
            raise RuntimeFailure("no terminal has come")
        return fds[0]


def start(settings: Settings, container_id: str, report: Report) -> None:
    """Let its first process run."""
    lifecycle.start(store_of(settings), container_id)
    report(None)


def add(job: Exec, report: Report) -> None:
    """Start one more process, and stand for it on the host from then on."""
    from runsc.containers import execspec  # noqa: PLC0415

    wishes = execspec.Wishes(job.id, (), process=job.spec)
    request, terminal, size = execspec.request(wishes, warn)
    _check_terminal(terminal, job.streams)
    opened = open_streams(job.streams, job.id, job.namespace, copied=True)
    slave = -1
    fds = opened.program
    if terminal:
        opened.kept[CONSOLE], slave = _terminal(size)
        fds = [slave, slave, slave]
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    process = _begun(job, request, fds)
    kept = Kept(process.pid, tuple(opened.kept), start_time(os.getpid()))
    report(kept, list(opened.kept.values()))
    os._exit(process.stand_for(slave))


def _begun(job: Exec, request: bytes, fds: list[int]) -> Process:
    from runsc.containers import execution  # noqa: PLC0415

    path = store_of(job.settings).path(job.id, "control.sock")
    try:
        return execution.start(path, request, fds)
    except (execution.Stopped, ConnectionRefusedError, FileNotFoundError):
        text = f'{execution.STOPPED}: "{job.id}"'
        raise Refused(Code.FAILED_PRECONDITION, text) from None


def _terminal(size: tuple[int, int] | None) -> tuple[int, int]:
    """Both ends of a new one."""
    import termios  # noqa: PLC0415

    master, slave = os.openpty()
    if size is not None:
        termios.tcsetwinsize(slave, size)
    return master, slave


def kill(settings: Settings, target: tuple[str, int], number: int, report: Report) -> None:
    """Send a signal to a process of a container, as that numbers it, or (0) to all of them."""
    container_id, pid = target
    try:
        lifecycle.kill(store_of(settings), container_id, number, pid == 0, pid or 1)
    except NotRunning:
        raise Refused(Code.NOT_FOUND, "process already finished") from None
    except RuntimeFailure as error:
        if "already finished" in str(error):
            raise Refused(Code.NOT_FOUND, "process already finished") from None
        raise
    report(None)


def pause(settings: Settings, container_id: str, report: Report) -> None:
    """Hold all of its processes."""
    lifecycle.pause(store_of(settings), container_id)
    report(None)


def checkpoint(
    settings: Settings, container_id: str, path: str, ends: bool, report: Report
) -> None:
    """Write its state into a folder."""
    from runsc.containers import snapshots  # noqa: PLC0415

    wish = snapshots.Wish(path, leave_running=not ends)
    snapshots.write(store_of(settings), container_id, wish)
    report(None)


def resume(settings: Settings, container_id: str, report: Report) -> None:
    """Let them go on."""
    lifecycle.resume(store_of(settings), container_id)
    report(None)


def update(settings: Settings, container_id: str, resources: bytes, report: Report) -> None:
    """Its limits from now on: `linux.resources` as JSON."""
    from runsc.commands.update import apply  # noqa: PLC0415
    from runsc.oci.resources import decode  # noqa: PLC0415

    try:
        wanted = decode(msgspec.json.decode(resources), "$")
    except msgspec.DecodeError as error:
        raise Refused(Code.INVALID_ARGUMENT, f"resources: {error}") from None
    apply(store_of(settings), container_id, wanted, warn)
    report(None)


def stats(settings: Settings, container_id: str, report: Report) -> None:
    """What it uses: the name of a message, and its bytes."""
    from runsc.commands.events import data  # noqa: PLC0415
    from runsc.shim import metrics  # noqa: PLC0415
    from sentry.control.protocol import Request  # noqa: PLC0415

    store = store_of(settings)
    state = store.load(container_id)
    lifecycle.require_running(state)
    answer = lifecycle.ask(store, state, Request("stats")).stats
    if answer is None:
        raise RuntimeFailure("the sandbox does not know its stats")
    name, message = metrics.made(data(state, answer), answer.oom_kills)
    report((name, encode(message)))


def delete(settings: Settings, container_id: str, bundle: str, report: Report) -> None:
    """End it, if it has not ended, and forget it."""
    lifecycle.delete(store_of(settings), container_id, True, warn)
    rootfs.unmount(bundle)
    report(None)


def host_kills(settings: Settings, container_id: str) -> int:
    """How many processes of its cgroup the host's kernel has killed for want of memory."""
    from runsc.cgroups.cgroup import Cgroup  # noqa: PLC0415
    from runsc.cgroups.stats import oom_kills  # noqa: PLC0415

    state = store_of(settings).load(container_id)
    return oom_kills(Cgroup(state.cgroups)) if state.cgroups.directories else 0
