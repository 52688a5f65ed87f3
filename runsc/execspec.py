"""What `exec` is asked to run, as the Sentry takes it: from flags, or from a process.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runsc.errors import RuntimeFailure
from sentry.control.protocol import ExecProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runsc.execution import Wishes


def from_flags(wishes: Wishes, warn: Callable[[str], None]) -> ExecProcess:
    """The container's own process, with what the flags change. Raises: RuntimeFailure."""
    if not wishes.args:
        raise RuntimeFailure("process args cannot be empty")
    if wishes.cwd is not None and not wishes.cwd.startswith("/"):
        raise RuntimeFailure("Cwd must be an absolute path")
    uid, gid = _user(wishes.user) if wishes.user else (None, None)
    for number in wishes.additional_gids:
        if number < 0:
            raise RuntimeFailure(f"additional-gids must be a positive number {number}")
    return ExecProcess(
        args=tuple(map(_bytes, wishes.args)),
        extra_env=tuple(map(_variable, wishes.env)),
        cwd=_bytes(wishes.cwd or ""),
        uid=uid,
        gid=gid,
        extra_gids=tuple(wishes.additional_gids),
        extra_capabilities=_capabilities(wishes.cap, warn) if wishes.cap else 0,
        no_new_privileges=True if wishes.no_new_privs else None,
        terminal=wishes.tty,
        ignore_paused=wishes.ignore_paused,
    )


def from_file(
    wishes: Wishes, warn: Callable[[str], None]
) -> tuple[ExecProcess, tuple[int, int] | None]:
    """--process, and the size of its terminal. Raises: RuntimeFailure, OSError."""
    from runsc import convert, spec  # noqa: PLC0415

    assert wishes.process is not None
    try:
        with open(wishes.process, "rb") as file:
            document = spec.decode(file.read(), spec.ExecDocument)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RuntimeFailure(f"open {wishes.process}: {reason}") from None
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
        terminal=made.terminal,
        ignore_paused=wishes.ignore_paused,
    )
    return process, made.console_size


def _bytes(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    if b"\0" in data:
        raise RuntimeFailure("a NUL character")
    return data


def _variable(text: str) -> bytes:
    if text.find("=") < 1:
        raise RuntimeFailure(
            "unable to start container process: invalid environment variable: missing '='"
        )
    return _bytes(text)


def _user(text: str) -> tuple[int, int | None]:
    user, colon, group = text.partition(":")
    gid = _number(group, "gid") if colon else None
    return _number(user, "uid"), gid


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >> 32:
        raise RuntimeFailure(
            f"parsing {text} as int for {what} failed: "
            f'strconv.Atoi: parsing "{text}": invalid syntax'
        )
    return int(text)


def _capabilities(names: Sequence[str], warn: Callable[[str], None]) -> int:
    from runsc import convert, spec  # noqa: PLC0415

    return convert.capabilities(spec.CapabilitySets(bounding=list(names)), warn).bounding
