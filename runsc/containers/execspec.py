"""What `exec` is asked to run, as a request to the Sentry: from flags, or from a process.json.

The first is written by hand, in the form of `sentry.control.protocol.Request`, for that module
costs more time than starting the process; see runsc/containers/execution.py.
"""

from __future__ import annotations

from binascii import b2a_base64

from runsc.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Size = tuple[int, int]
    Warn = Callable[[str], None]

LAST_ID = (1 << 32) - 2
"""Of users and groups."""


class Wishes:
    """What the command line asks for."""

    __slots__ = (
        "additional_gids", "args", "cap", "console_socket", "container_id", "cwd", "detach", "env",
        "ignore_paused", "no_new_privs", "pid_file", "preserve_fds", "process", "tty", "user",
    )  # fmt: skip

    def __init__(self, container_id: str, args: Sequence[str], **given: Any) -> None:
        self.container_id = container_id
        self.args = args
        self.console_socket: str | None = given.get("console_socket")
        self.cwd: str | None = given.get("cwd")
        self.env: Sequence[str] = given.get("env", ())
        self.tty: bool = given.get("tty", False)
        self.user: str | None = given.get("user")
        self.additional_gids: Sequence[int] = given.get("additional_gids", ())
        self.process: str | bytes | None = given.get("process")
        """The name of a file, or what would be in it."""
        self.detach: bool = given.get("detach", False)
        self.pid_file: str | None = given.get("pid_file")
        self.no_new_privs: bool = given.get("no_new_privs", False)
        self.cap: Sequence[str] = given.get("cap", ())
        self.preserve_fds: int = given.get("preserve_fds", 0)
        self.ignore_paused: bool = given.get("ignore_paused", False)


def request(wishes: Wishes, warn: Warn) -> tuple[bytes, bool, Size | None]:
    """The request, whether the process has a terminal, and of which size.

    Raises: RuntimeFailure in runc's words.
    """
    if wishes.process is not None:
        return _from_file(wishes, warn)
    return _from_flags(wishes, warn), wishes.tty, None


def _from_flags(wishes: Wishes, warn: Warn) -> bytes:
    """The container's own process, with what the flags change."""
    if not wishes.args:
        raise RuntimeFailure("process args cannot be empty: name a command, or --process FILE")
    if wishes.cwd is not None and not wishes.cwd.startswith("/"):
        raise RuntimeFailure("Cwd must be an absolute path")
    fields = [
        '"args":' + _texts(map(_bytes, wishes.args)),
        '"extra_env":' + _texts(map(_variable, wishes.env)),
        '"cwd":' + _text(_bytes(wishes.cwd or "")),
    ]
    if wishes.user:
        user, colon, group = wishes.user.partition(":")
        if colon:
            fields.append(f'"gid":{_number(group, "gid")}')
        fields.append(f'"uid":{_number(user, "uid")}')
    for number in wishes.additional_gids:
        if not 0 <= number <= LAST_ID:
            raise RuntimeFailure(f"additional-gids must be a positive number {number}")
    if wishes.additional_gids:
        fields.append(f'"extra_gids":{list(wishes.additional_gids)}')
    if wishes.cap:
        fields.append(f'"extra_capabilities":{_capabilities(wishes.cap, warn)}')
    if wishes.no_new_privs:
        fields.append('"no_new_privileges":true')
    if wishes.tty:
        fields.append('"terminal":true')
    if wishes.ignore_paused:
        fields.append('"ignore_paused":true')
    return ('{"op":"exec","process":{' + ",".join(fields) + "}}\n").encode()


def _text(data: bytes) -> str:
    """Bytes in JSON, as msgspec has them."""
    return f'"{b2a_base64(data, newline=False).decode()}"'


def _texts(items: Iterable[bytes]) -> str:
    return "[" + ",".join(map(_text, items)) + "]"


def _from_file(wishes: Wishes, warn: Warn) -> tuple[bytes, bool, Size | None]:
    """--process."""
    from runsc.oci import convert, spec  # noqa: PLC0415
    from sentry.control.orders import ExecProcess  # noqa: PLC0415
    from sentry.control.protocol import Request, encode  # noqa: PLC0415

    assert wishes.process is not None
    document = spec.decode(_read(wishes.process), spec.ExecDocument)
    if not document.cwd:
        raise RuntimeFailure("Cwd property must not be empty")
    if not document.args:
        raise RuntimeFailure("args must not be empty")
    made = convert.process(document, warn, "$")
    process = ExecProcess(
        args=made.args,
        env=made.env,
        cwd=made.cwd,
        uid=made.uid,
        gid=made.gid,
        additional_gids=made.additional_gids,
        umask=None if document.user.umask is None else made.umask,
        capabilities=None if document.capabilities is None else made.capabilities,
        rlimits=made.rlimits,
        no_new_privileges=made.no_new_privileges,
        oom_score_adj=document.oom_score_adj,
        scheduler=made.scheduler,
        io_priority=made.io_priority or None,
        terminal=made.terminal,
        ignore_paused=wishes.ignore_paused,
    )
    return encode(Request("exec", process=process)), made.terminal, made.console_size


def _read(process: str | bytes) -> bytes:
    if isinstance(process, bytes):
        return process
    try:
        with open(process, "rb") as file:
            return file.read()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RuntimeFailure(f"open {process}: {reason}") from None


def _bytes(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    if b"\0" in data:
        raise RuntimeFailure("a NUL character")
    return data


def _variable(text: str) -> bytes:
    if text.find("=") < 1:
        raise RuntimeFailure(
            "unable to start container process: invalid environment variable: missing '='",
            hint="a variable is NAME=VALUE",
        )
    return _bytes(text)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11) or int(text) > LAST_ID:
        raise RuntimeFailure(
            f"parsing {text} as int for {what} failed: names are not looked up",
            hint="give numbers, as in `-u 1000:1000`; /etc/passwd of the container has them",
        )
    return int(text)


def _capabilities(names: Sequence[str], warn: Callable[[str], None]) -> int:
    from runsc.oci import convert, spec  # noqa: PLC0415

    return convert.capabilities(spec.CapabilitySets(bounding=list(names)), warn).bounding
