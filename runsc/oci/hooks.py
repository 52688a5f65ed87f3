"""Hooks of config.json: programs of the caller, run at points of a container's life.

Runtime specification 1.2, config.md, "POSIX-platform Hooks". A hook gets the container's state as
JSON on standard input. When each kind runs, and in whose namespaces:

| kind | when | namespaces | a failure |
|---|---|---|---|
| prestart, createRuntime | the sandbox exists, nothing has run | the caller's | ends creation |
| createContainer | then | the Gofer's; its trees come from these mounts | ends creation |
| startContainer | before its first process runs | the container's (`start_hooks`) | ends it |
| poststart | the program has been started | the caller's | ends it |
| poststop | the container has been deleted | the caller's | is a warning |

The specification leaves open where a hook runs, and with which variables if it names none. As with
runc that is the bundle's directory, and the caller's; for createContainer the root directory, for
startContainer the process's cwd, both with the variables of the process.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import msgspec

from runsc import host
from runsc.errors import RuntimeFailure, SpecError
from runsc.oci.spec import Hook, Hooks, Process
from sentry.abi import prctl

Part = TypeVar("Part", Hooks, Process)
LONGEST_MS = 86_400_000
"""For which is waited at a time: poll(2) counts 31 bits of milliseconds."""
ENDED = "the container has ended"
MAX_OUTPUT = 64 << 10
"""Bytes kept of what a hook writes; more is read and dropped."""


class Phase(StrEnum):
    """The kinds of hooks, by their names in config.json."""

    PRESTART = "prestart"
    CREATE_RUNTIME = "createRuntime"
    CREATE_CONTAINER = "createContainer"
    START_CONTAINER = "startContainer"
    POSTSTART = "poststart"
    POSTSTOP = "poststop"


class StateDocument(msgspec.Struct, rename="camel", omit_defaults=True):
    """runtime.md, "State": what a hook reads."""

    oci_version: str
    id: str
    status: str
    bundle: str
    pid: int = 0
    annotations: dict[str, str] = {}

    def encode(self) -> bytes:
        """As JSON, for `run`."""
        return msgspec.json.encode(self)


def of(hooks: Hooks | None, phase: Phase) -> Sequence[Hook]:
    """The hooks of one kind; none is an empty list."""
    if hooks is None:
        return ()
    found: list[Hook] | None = getattr(hooks, _FIELDS[phase])
    return found or ()


def written(part: Hooks | Process | None) -> dict[str, Any]:
    """As in config.json, for state.json; empty if there are none."""
    if part is None:
        return {}
    made: dict[str, Any] = msgspec.to_builtins(part)
    return made


def read(document: dict[str, Any]) -> Hooks:
    """What `written` has made. Raises: RuntimeFailure."""
    return _read_as(Hooks, document)


def process(document: dict[str, Any]) -> Process:
    """The same of what startContainer hooks are run like."""
    return _read_as(Process, document)


def _read_as(kind: type[Part], document: dict[str, Any]) -> Part:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise RuntimeFailure(f"hooks in state.json: {error}") from None


_FIELDS = {
    Phase.PRESTART: "prestart",
    Phase.CREATE_RUNTIME: "create_runtime",
    Phase.CREATE_CONTAINER: "create_container",
    Phase.START_CONTAINER: "start_container",
    Phase.POSTSTART: "poststart",
    Phase.POSTSTOP: "poststop",
}


def check(hooks: Hooks | None, warn: Callable[[str], None]) -> None:
    """Before anything runs. Raises: SpecError for what can never be run."""
    for phase in Phase:
        for index, hook in enumerate(of(hooks, phase)):
            where = f"$.hooks.{phase}[{index}]"
            if not os.path.isabs(hook.path):
                raise SpecError(f"{where}.path", "the path of a hook must be absolute")
            if hook.timeout is not None and hook.timeout <= 0:
                raise SpecError(f"{where}.timeout", "a timeout must be greater than zero")
            if any("\0" in text for text in (hook.path, *(hook.args or ()), *(hook.env or ()))):
                raise SpecError(where, "it has a NUL character")


class Place(msgspec.Struct, frozen=True):
    """Where a hook runs: the bundle's directory, with the caller's environment, if not told."""

    directory: str = ""
    environment: Sequence[str] | None = None
    """Of hooks that name none."""
    ends_with: int = -1
    """The pidfd of a process with whose end the hook is killed, and no more are run. Which of the
    container's processes has brought that about the caller looks for."""
    tie: int = 0
    """The signal that the hook gets when who runs it has ended; 0: none."""


CALLERS = Place()


def run(hooks: Hooks | None, phase: Phase, state: StateDocument, place: Place = CALLERS) -> None:
    """All hooks of one kind, in their order; the first failure ends it.

    Raises: RuntimeFailure with runc's words.
    """
    for index, hook in enumerate(of(hooks, phase)):
        problem = run_one(hook, state, place)
        if problem == ENDED:
            return
        if problem:
            raise RuntimeFailure(f"error running {phase} hook #{index}: {problem}")


def run_all(
    hooks: Hooks | None, phase: Phase, state: StateDocument, warn: Callable[[str], None]
) -> None:
    """All hooks of one kind whatever becomes of them: a failure is a warning."""
    for index, hook in enumerate(of(hooks, phase)):
        problem = run_one(hook, state)
        if problem:
            warn(f"error running {phase} hook #{index}: {problem}")


def run_one(hook: Hook, state: StateDocument, place: Place = CALLERS) -> str:
    """Run it to its end; empty when it went well, else what went wrong."""
    variables = place.environment if hook.env is None else hook.env
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:  # what ends us comes once the hook is known
        child = subprocess.Popen(
            hook.args or [hook.path],
            executable=hook.path,
            env=None if variables is None else _environment(variables),
            cwd=place.directory or state.bundle,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=partial(_begin, signals, place.tie, os.getpid()),  # noqa: PLW1509  one thread
        )
    except BaseException as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        if not isinstance(error, OSError):
            raise
        return f"fork/exec {hook.path}: {(error.strerror or str(error)).lower()}"
    with child:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            output = _communicate(child, state.encode(), hook.timeout, place.ends_with)
        except BaseException:  # a signal that ends us: who leaves this waits for the hook
            _kill(child)
            raise
        if isinstance(output, str):
            _kill(child)
            return output
        status = child.wait()
    if status == 0:
        return ""
    text = [data.decode(errors="replace") for data in output]
    return f"{_describe(status)}, stdout: {text[0]}, stderr: {text[1]}"


def _begin(signals: set[int], tie: int, parent: int) -> None:
    """In the hook's process. `tie`: the signal it gets when that which has made it ends, or has."""
    if tie:
        host.prctl(prctl.PR_SET_PDEATHSIG, tie)
        if os.getppid() != parent:
            os.kill(os.getpid(), tie)
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def _environment(variables: Sequence[str]) -> dict[bytes, bytes]:
    """Only what the hook is given; of a name that comes twice the last counts."""
    pairs = (os.fsencode(variable).partition(b"=") for variable in variables)
    return {name: value for name, _, value in pairs if name}


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The hook, and what it has started in its session's group."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return f"signal: {(signal.strsignal(-status) or str(-status)).lower()}"


def _communicate(
    child: subprocess.Popen[bytes], document: bytes, timeout_s: int | None, ends_with: int
) -> tuple[bytes, bytes] | str:
    """Write the document and read both outputs until the hook ends; or why it has to be killed.

    The end is the end of the process, not of its output: a hook may leave a daemon behind that
    keeps the pipes.
    """
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ended = os.pidfd_open(child.pid)
    inputs, outputs = child.stdin.fileno(), (child.stdout.fileno(), child.stderr.fileno())
    kept = {fd: bytearray() for fd in outputs}
    poll = select.poll()
    for fd in (ended, *outputs, *([ends_with] if ends_with >= 0 else ())):
        poll.register(fd, select.POLLIN)
    poll.register(inputs, select.POLLOUT)
    for fd in (inputs, *outputs):
        os.set_blocking(fd, False)
    try:
        while True:
            left = None
            if deadline is not None:
                left = min(max(0.0, deadline - time.monotonic()) * 1000, LONGEST_MS)
            events = dict(poll.poll(left))
            if inputs in events:
                document = document[_write(inputs, document) :]
                if not document:
                    poll.unregister(inputs)
                    child.stdin.close()
            for fd in outputs:
                if fd in events and not _read(fd, kept[fd]):
                    poll.unregister(fd)
            if ended in events:
                for fd in outputs:
                    _read(fd, kept[fd])
                return bytes(kept[outputs[0]]), bytes(kept[outputs[1]])
            if ends_with in events:
                return ENDED
            if deadline is not None and time.monotonic() >= deadline:
                return f"hook ran past specified timeout of {float(timeout_s or 0):.1f}s"
    finally:
        os.close(ended)


def _write(fd: int, data: bytes) -> int:
    """How much is dealt with: all of it when nobody reads."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(data)


def _read(fd: int, kept: bytearray) -> bool:
    """Take as much as a pipe has, once, for who writes may never stop; False at the end of the
    file."""
    try:
        data = os.read(fd, MAX_OUTPUT)
    except OSError as error:
        return error.errno == errno.EAGAIN
    kept += data[: MAX_OUTPUT - len(kept)]
    return bool(data)
