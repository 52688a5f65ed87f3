"""The process that makes a sandbox for the Python API and stays with it: `python -m` of this.

The caller may have many threads, and the runtime forks and changes namespaces; so it runs here, in
a process of one thread, as a library. What it is asked for comes over a socket, its first argument;
the second is how many CPUs it may use (0: all), and a third one that a zygote is to begin once the
sandbox is there. When the other end of the socket closes the sandbox ends, however the caller
ended; when this process is killed the host's kernel ends the sandbox, and its janitor removes what
is left. A detached sandbox is left alone once it runs, and its caller has said that it knows so.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from contextlib import contextmanager, nullcontext, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runsc.api.order import Order
    from runsc.containers.state import State
    from runsc.options import Globals

CHUNK = 1 << 16
TELLS_S = 0.1


class Gone(BaseException):
    """Nobody wants the sandbox any more."""


def main() -> None:
    """The program."""
    from runsc.launch import finder  # noqa: PLC0415  the Sentry begins first

    finder.install()
    code = 1
    try:
        code = carried_out(sys.argv[1:], os.getppid())
    finally:
        os._exit(code)


def carried_out(words: list[str], caller: int) -> int:
    """The exit code. Also in a fork of the zygote."""
    gc.disable()
    fd, cpus = map(int, words[:2])
    os.set_inheritable(fd, False)
    if cpus:
        allowed = sorted(os.sched_getaffinity(0))
        first = int.from_bytes(os.urandom(4), "little") % len(allowed)
        os.sched_setaffinity(0, (allowed * 2)[first : first + min(cpus, len(allowed))])
    from runsc.containers import signals  # noqa: PLC0415
    from runsc.launch import early  # noqa: PLC0415

    signals.end_by_exception()
    early.begin()
    early.begin_gofer()
    try:
        return keep(socket.socket(fileno=fd), *words[2:])
    finally:
        early.discard()


def keep(sock: socket.socket, *begins: str) -> int:
    """Make what is asked for, and stay to its end; the exit code."""
    line = read_line(sock)
    if line is None:
        return 1
    import msgspec  # noqa: PLC0415  while the Sentry imports

    from runsc.api.order import Order, Word  # noqa: PLC0415
    from runsc.errors import RuntimeFailure  # noqa: PLC0415

    def say(word: str, text: str = "", done: int = 0, total: int = 0) -> None:
        said = msgspec.json.encode(Word(word, text, done, total))
        sock.sendall(said + b"\n", socket.MSG_NOSIGNAL)
        if begins and word == "ready":
            _begin_zygote()

    try:
        _make(msgspec.json.decode(line, type=Order), sock, say)
    except (BrokenPipeError, Gone):
        return 1
    except (RuntimeFailure, OSError) as error:
        return _failed(say, str(error))
    except Exception as error:  # a defect of ours: who asked has to hear of it
        return _failed(say, f"the runtime failed: {error!r}")
    return 0


def _begin_zygote() -> None:
    """By a child that ends at once: whoever reaps ours knows nothing of it."""
    from runsc.zygote import beginning  # noqa: PLC0415

    child = os.fork()
    if not child:
        try:
            beginning.begin()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _failed(say: Say, text: str) -> int:
    with suppress(OSError):  # nobody may be there any more
        say("error", text)
    return 1


def read_line(sock: socket.socket) -> bytes | None:
    """The first one; None if the other end closes before."""
    from runsc.api.order import MAX_LINE  # noqa: PLC0415

    data = bytearray()
    while not data.endswith(b"\n"):
        piece = sock.recv(CHUNK)
        if not piece or len(data) > MAX_LINE:
            return None
        data += piece
    return bytes(data)


def _make(order: Order, sock: socket.socket, say: Say) -> None:
    """Raises: RuntimeFailure, OSError."""
    from msgspec.structs import replace  # noqa: PLC0415

    from runsc import cli  # noqa: PLC0415
    from runsc.api import document  # noqa: PLC0415
    from runsc.containers.names import check_id  # noqa: PLC0415
    from runsc.errors import RuntimeFailure  # noqa: PLC0415
    from runsc.launch import bundle, joining, launch  # noqa: PLC0415
    from runsc.launch.configure import Wishes  # noqa: PLC0415
    from runsc.progress import silent  # noqa: PLC0415

    settings = cli.global_flags(document.flags(order))
    settings = settings.changed(log=_log(say, settings))
    tell = _teller(say) if order.tells else silent
    with _while_wanted(sock) if order.image else nullcontext():
        folder, config = document.document(order, tell)
    identity, container = bundle.described(settings, folder, config, check_id(order.sandbox_id))
    name = identity.container_id
    joint = joining.find(settings.store(), name, identity.annotations, container)
    if joint is not None:
        raise RuntimeFailure(f'it would be a container of the sandbox "{joint.sandbox.id}"')

    image = None
    if order.snapshot:
        from runsc.containers import snapshots  # noqa: PLC0415

        snapshots.read(order.snapshot)
        image = order.snapshot
    began = Wishes(
        image=image, background=order.background, egress_used=order.now.used,
        injected=order.now.injected,
        tell=tell if order.tells and image else None,
    )  # fmt: skip

    def ready(state: State | None = None) -> None:
        _expire(settings, order)
        say("ready")

    if not order.detach:
        wishes = replace(began, when_ready=ready, lifeline=sock.fileno())
        launch.run(settings, identity, container, wishes)
        return
    wishes = replace(began, detach=True)
    launch.run(settings, identity, container, wishes)
    try:
        _expire(settings, order)
        say("ready")
        if not sock.recv(1):
            raise Gone
    except BaseException:  # also a signal: nobody would end it
        from runsc.containers import lifecycle  # noqa: PLC0415

        lifecycle.delete(settings.store(), name, True, settings.log.warning)
        raise


def _teller(say: Say) -> Tell:
    """Says how far it is, ten times a second at most, and whenever something begins or is done."""
    from time import monotonic  # noqa: PLC0415

    last, last_s = ("", 0), 0.0

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last, last_s
        now_s = monotonic()
        is_due = what != last[0] or done == total or now_s - last_s >= TELLS_S
        if is_due and (what, done) != last:
            last, last_s = (what, done), now_s
            say("progress", what, done, total)

    return tell


@contextmanager
def _while_wanted(sock: socket.socket) -> Iterator[None]:
    """Who asked may end, or give up, while an image becomes a root: SIGIO tells, fcntl(2).

    Raises: Gone.
    """
    import fcntl  # noqa: PLC0415
    import signal  # noqa: PLC0415

    def look(*_: object) -> None:
        with suppress(BlockingIOError):
            if not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise Gone

    before = signal.signal(signal.SIGIO, look)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(sock, fcntl.F_GETFL)
    fcntl.fcntl(sock, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        look()
        yield
    finally:
        fcntl.fcntl(sock, fcntl.F_SETFL, flags)
        signal.signal(signal.SIGIO, before)


def _expire(settings: Globals, order: Order) -> None:
    """Its Sentry ends it in time, whoever is there then. Raises: RuntimeFailure."""
    if not order.expires_ns:
        return
    from runsc.containers import lifecycle  # noqa: PLC0415
    from runsc.errors import RuntimeFailure  # noqa: PLC0415
    from sentry.control.protocol import Request  # noqa: PLC0415

    store = settings.store()
    request = Request("expire", time_ns=order.expires_ns)
    error = lifecycle.ask(store, store.load(order.sandbox_id), request).error
    if error:
        raise RuntimeFailure(error)


def _log(say: Say, settings: Globals) -> Log:
    """Warnings go to who asked."""
    from runsc.log import Log  # noqa: PLC0415

    class Told(Log):
        """Of the level that a caller should know of."""

        def write(self, level: str, message: str) -> None:
            if level in ("warning", "error"):
                with suppress(OSError):  # nobody may be there any more
                    say("warning", message)

    return Told(None, "text", settings.debug)


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runsc.log import Log
    from runsc.progress import Tell

    Say = Callable[..., None]

if __name__ == "__main__":
    main()
