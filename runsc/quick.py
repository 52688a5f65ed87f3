"""`exec` without the command line's framework, which costs more than all the rest of it.

Only command lines that are understood beyond doubt are taken; others (also --help, and what is
wrong) go to runsc/cli.py, which has the same flags and the messages.
"""

from __future__ import annotations

import os

from runsc.containers.names import default_root
from runsc.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from runsc.containers.execspec import Wishes

GLOBALS = {
    "--debug-log": None,
    "--log": None,
    "--log-format": ("text", "json"),
    "--network": ("none", "host"),
    "--platform": ("kvm", "unicorn"),
    "--root": None,
    "--strace-log": None,
    "--strace-log-size": None,
    "--strace-syscalls": None,
    "--TESTONLY-steps": None,
}
"""Flags before `exec`, each with a value, and which values."""
GLOBAL_SWITCHES = ("--debug", "--ignore-cgroups", "--strace", "--systemd-cgroup")
VALUES = {
    "--console-socket": "console_socket", "--cwd": "cwd", "--pid-file": "pid_file",
    "--process": "process", "-p": "process", "--user": "user", "-u": "user",
}  # fmt: skip
LISTS = {
    "--additional-gids": "additional_gids", "-g": "additional_gids", "--cap": "cap", "-c": "cap",
    "--env": "env", "-e": "env",
}  # fmt: skip
SWITCHES = {
    "--detach": "detach", "-d": "detach", "--ignore-paused": "ignore_paused",
    "--no-new-privs": "no_new_privs", "--tty": "tty", "-t": "tty",
}  # fmt: skip
NUMBERS = {"--preserve-fds": "preserve_fds"}


class Doubt(Exception):
    """Not for us."""


def root_before(command: str, words: Iterator[str]) -> str:
    """The state root, by the flags before a command, which is taken too. Raises: Doubt."""
    root = default_root()
    for word in words:
        if word == command:
            return root
        if word in GLOBAL_SWITCHES:
            continue
        name, value = _named(word, words)
        if name not in GLOBALS or value not in (GLOBALS[name] or (value,)):
            raise Doubt
        if name == "--root":
            root = value
    raise Doubt


def parse(args: list[str]) -> tuple[str, Wishes]:
    """The state root and what is asked for. Raises: Doubt."""
    from runsc.containers.execspec import Wishes  # noqa: PLC0415  `state` has none

    words = iter(args)
    root = root_before("exec", words)
    given: dict[str, Any] = {}
    for word in words:
        if not word.startswith("-"):
            return root, Wishes(word, list(words), **given)
        if word in SWITCHES:
            given[SWITCHES[word]] = True
            continue
        name, value = _named(word, words)
        if name in VALUES:
            given[VALUES[name]] = value
        elif name in LISTS:
            key = LISTS[name]
            given.setdefault(key, []).append(_number(value) if key == "additional_gids" else value)
        elif name in NUMBERS:
            given[NUMBERS[name]] = _number(value)
        else:
            raise Doubt
    raise Doubt


def _named(word: str, words: Iterator[str]) -> tuple[str, str]:
    """A flag and its value: in one word after "=" for a long one, else in the next."""
    name, equals, value = word.partition("=")
    if equals and not name.startswith("--"):
        raise Doubt
    if not equals:
        value = next(words, "-")
        if value.startswith("-"):
            raise Doubt
    return name, value


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Doubt
    return int(text)


def attempt(args: list[str]) -> int | None:
    """Run `exec`: its exit code; None if the command line has to do it, or to report."""
    from runsc.containers import execution  # noqa: PLC0415

    try:
        root, wishes = parse(args)
        for fd in (0, 1, 2):
            os.fstat(fd)
    except (Doubt, OSError):
        return None
    try:
        return execution.run(os.path.abspath(root), wishes, _doubt)
    except Doubt:
        return None
    except RuntimeFailure as error:
        execution.answers.append(error)
        return None


def _doubt(message: str) -> None:
    """There is something to warn about, and no log here. Nothing has happened yet."""
    raise Doubt(message)
