"""The messages of the command line: for a person at a terminal, else in runc's text or json.

Callers (docker, containerd) read the JSON log for level=error. The standard library's logging is
not used: importing it costs more than everything this module does.
"""

from __future__ import annotations

import os
import sys
import time

from runsc.as_json import dumps, quoted
from runsc.errors import RuntimeFailure, code_of_do

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

PREFIXES = {
    "create": "runsc create failed: ",
    "do": "runsc do failed: ",
    "exec": "exec failed: ",
    "run": "runsc run failed: ",
}
"""What runc puts before the message of a command that fails; nothing for the others."""
LEVELS = ("debug", "info", "warning", "error")


PERSONAL = {"debug": "debug: ", "info": "", "warning": "warning: ", "error": ""}
"""What a person is told of the level."""
COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m"}
"""ECMA-48: yellow, red; of the words in front of a message."""
PLAIN = "\x1b[0m"
UNREAD = 141
"""The exit code where nobody reads what is written any more: as a shell has it for SIGPIPE."""


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def is_coloured(fd: int) -> bool:
    """Whether that is a terminal with colours, of somebody who wants them: NO_COLOR, CLICOLOR=0.

    https://no-color.org, https://bixense.com/clicolors
    """
    ask = os.environ.get
    if ask("NO_COLOR") or ask("CLICOLOR") == "0" or ask("TERM", "dumb") in ("", "dumb"):
        return False
    return _is_terminal(fd)


def addressed(level: str, fd: int) -> str:
    """What stands before a message for a person."""
    prefix = f"runsc: {PERSONAL[level]}"
    if level not in COLOURS or not is_coloured(fd):
        return prefix
    return f"{COLOURS[level]}{prefix.rstrip()}{PLAIN} "


def printable(text: str) -> str:
    """For a terminal: what is no text, and may come from a program inside, is a question mark."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def printable_json(data: bytes) -> str:
    """The same of a JSON document, which stays one and says the same: \\uXXXX."""
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in data.decode())


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


class Log:
    """Writes one line a message to a file, or to standard error."""

    def __init__(self, path: str | None, form: str, debug: bool) -> None:
        self.is_json = form == "json"
        self._least = 0 if debug else 1
        self._lost = 0
        self._torn = b""
        """What ends a line of which only a part was taken."""
        self.to_stderr = path is None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.fd = 2 if path is None else os.open(path, flags, 0o644)
        self.to_person = path is None and not self.is_json and _is_terminal(2)

    def be_quiet(self) -> None:
        """Errors only."""
        self._least = LEVELS.index("error")

    def write(self, level: str, message: str) -> None:
        """One message, if its level is wanted. Where it cannot be written (nobody reads the pipe,
        the disk is full) it is lost: what it is about goes on, and the next one says so."""
        if LEVELS.index(level) < self._least:
            return
        end = self._end()
        text = self._line(level, message) + end
        if self._lost:
            text = self._line("warning", f"{self._lost} messages lost") + end + text
        try:
            done = os.write(self.fd, self._torn + text)
        except OSError:
            done = 0
        if done == len(self._torn) + len(text):
            self._lost, self._torn = 0, b""
        else:
            self._lost += 1
            self._torn = end if done else self._torn

    def _line(self, level: str, message: str) -> bytes:
        if self.to_person:
            return f"{addressed(level, self.fd)}{printable(message)}".encode()
        message = message.encode(errors="replace").decode()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.is_json:
            return dumps({"level": level, "msg": message, "time": now})
        return f'time="{now}" level={level} msg={quoted(message)}'.encode()

    def _end(self) -> bytes:
        """Of a line: a terminal may be raw, while a program has it."""
        if not self.to_person:
            return b"\n"
        import termios  # noqa: PLC0415  not for engines

        try:
            is_raw = not termios.tcgetattr(self.fd)[1] & termios.OPOST
        except termios.error:
            is_raw = False
        return b"\r\n" if is_raw else b"\n"

    def debug(self, message: str) -> None:
        """For developers; written with --debug."""
        self.write("debug", message)

    def warning(self, message: str) -> None:
        """Something was left out."""
        self.write("warning", message)

    def error(self, message: str, stderr: TextIO, hint: str = "") -> None:
        """The command failed; a person at a terminal sees it also when a log file is named."""
        self.write("error", message)
        if not self.to_stderr:
            print(printable(message), file=stderr)
        if not (self.to_person or (not self.to_stderr and _is_terminal(2))):
            return
        if not hint:
            from runsc import advice  # noqa: PLC0415  only for a person

            hint = advice.hint(message)
        if hint:
            print(f"hint: {printable(hint)}", file=stderr)


def outcome(
    command: Callable[[], str], log: Callable[[], Log | None], call: Callable[[], int]
) -> int:
    """The exit code of a command, which says why it failed. What it has written is out then."""
    error: RuntimeFailure | None = None
    try:
        try:
            return call()
        except RuntimeFailure as failure:
            error = failure
        finally:
            sys.stdout.flush()
    except OSError as failure:
        is_unread = isinstance(failure, BrokenPipeError) and _is_unread()
        _drop()
        if is_unread and error is None:
            return UNREAD
        reason = (failure.strerror or str(failure)).lower()
        where = f"open {failure.filename}: " if failure.filename else ""
        error = error or RuntimeFailure(where + reason)
    found = log() or Log(None, "text", debug=False)
    prefix = PREFIXES.get(command(), "")
    if found.to_person:
        prefix = prefix.removeprefix("runsc ")
    found.error(f"{prefix}{error}", sys.stderr, error.hint)
    return code_of_do(error) if command() == "do" else error.code


def _is_unread() -> bool:
    """Whether standard output is a pipe or a socket whose reader has gone."""
    import select  # noqa: PLC0415  seldom

    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _drop() -> None:
    """What standard output does not take: CPython would try it again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
