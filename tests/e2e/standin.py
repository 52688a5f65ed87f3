"""A sandbox whose Sentry and Gofer are small stand-ins: what runsc does around them is real.

`python standin.py ROOT SENTRY GOFER` runs the bodies of these names; a body is called in the
confined process, after the filter is on. "call NUMBER ARGUMENT..." makes one system call.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from gofer.attachment import Attachment
from gofer.shared import Given
from runsc import filters, log, options
from runsc.commands.do import document
from runsc.containers.container import Store
from runsc.errors import Busy, RuntimeFailure
from runsc.launch import boot, launch, programs, sandbox
from runsc.launch.configure import Wishes
from runsc.oci import convert
from sentry.config import SandboxConfig, StartError

LIBC = ctypes.CDLL(None, use_errno=True)
BUFFER = ctypes.create_string_buffer(4096)
BUFFER_ADDRESS = ctypes.addressof(BUFFER)
PATH_ADDRESS = ctypes.addressof(ctypes.create_string_buffer(b"/etc/passwd"))
NAMED = {"buffer": BUFFER_ADDRESS}
TIMEOUT = 60.0


def system_call(words: Sequence[str]) -> str:
    """Make one system call; "-> result" or "-> errno N"."""
    numbers = [NAMED[word] if word in NAMED else int(word, 0) for word in words]
    result = LIBC.syscall(*(ctypes.c_long(number) for number in numbers))
    return f"-> errno {ctypes.get_errno()}" if result == -1 else f"-> {result}"


def until_closed(sock: socket.socket | int) -> None:
    """Stay until the other end is gone."""
    fd = sock if isinstance(sock, int) else sock.fileno()
    while os.read(fd, 4096):
        pass


class Body:
    """What the stand-in for the Sentry does."""

    def __init__(self, words: str, config: SandboxConfig) -> None:
        self.words = words.split()
        self.config = config

    def say(self, text: str) -> None:
        """To the caller's standard output."""
        os.write(self.config.stdio[1], text.encode() + b"\n")

    ran_out = False

    def leave_files(self) -> None:
        os.close(self.config.gofer_fd)

    def run(self) -> int:
        """The wait status of the first process."""
        os.read(self.config.gofer_fd, 1)  # the Gofer is confined, as for a real session
        match self.words:
            case ["call", *numbers]:
                self.say(system_call(numbers))
            case ["exit", status]:
                return int(status, 0)
            case ["wait"]:
                self.say("ready")
                until_closed(self.config.gofer_fd)
                return 9
            case ["forwarded"]:
                self.say("ready")
                self.say(os.read(self.config.control_fd, 4096).decode())
            case ["raise"]:
                self.say(_raised())
            case ["late-import"]:
                self.say(_imported())
            case ["fail"]:
                raise StartError('exec: "/nope": no such file or directory')
            case ["crash"]:
                raise RuntimeError("a defect of ours")
        return 0


def _raised() -> str:
    """Print a traceback as an exception that nobody catches would."""
    try:
        raise ValueError("seen")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    return "printed"


def _imported() -> str:
    try:
        import wave  # noqa: F401, PLC0415
    except ImportError:
        return "ImportError"
    return "imported"


def serve(words: str) -> boot.Serve:
    """What the stand-in for the Gofer does."""

    def body(
        sock: socket.socket,
        attachments: Sequence[Attachment],
        lockdown: Callable[[], None],
        write_log: Callable[[str], None],
        given: Given,
    ) -> None:
        lockdown()
        sock.sendmsg([b"."])
        match words.split():
            case ["call", *numbers]:
                write_log(system_call(numbers))
            case ["quit"]:
                return
        until_closed(sock)

    return body


def _looked_at(running: sandbox.Sandbox) -> None:
    """In place of the word that lets the program run: what others see then. It never runs."""
    store = Store(sys.argv[1])
    running.await_ready()
    try:
        store.lock("c1", 0).__exit__()
        word = "free"
    except Busy:
        word = "held"
    print(store.load("c1").phase, word, flush=True)
    os.kill(running.pid, signal.SIGKILL)


def main(root: str, sentry_words: str, gofer_words: str, *flags: str) -> int:
    """Run the two bodies in a sandbox over an empty bundle."""
    made = document("/", "/", ("true",), [])
    container = convert.container("/", made, "memory", print)
    settings = options.Globals(
        root=root,
        log=log.Log(None, "text", False),
        platform="kvm" if os.path.exists("/dev/kvm") else "unicorn",
        network="none",
        debug=False,
        debug_log=None,
        strace=False,
        overlay="memory",
        memory=64 << 20,
        trap="trap" in flags,
    )

    def prepare(config: SandboxConfig, lockdown: Callable[[], None]) -> Body:
        lockdown()
        if sentry_words == "silent":
            until_closed(config.gofer_fd)
        return Body(sentry_words, config)

    def body(config: SandboxConfig, switches: filters.Switches, terms: boot.Terms) -> int:
        return boot.sentry_main(config, prepare, switches, terms)

    made_of = programs.Programs(programs.forked(body), programs.forked_gofer(serve(gofer_words)))
    identity = launch.Identity("c1", "/", "/", "1.2.0", {})
    if "unbegun" in flags:
        sandbox.Sandbox.begin = _looked_at  # type: ignore[method-assign, assignment]
    if "hurry" in flags:
        sandbox.READY_S = 0.5
    try:
        if "create" in flags:
            wishes = Wishes(detach=True)
            launch.create(settings, identity, container, wishes, lambda platform: made_of)
            return 0
        return launch.run(settings, identity, container, Wishes(), lambda platform: made_of)
    except RuntimeFailure as error:
        print(error, file=sys.stderr)
        return error.code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
