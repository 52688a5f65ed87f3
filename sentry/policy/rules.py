"""`on`: what a policy's handlers are for. `Rule`: one of them, with its filters.

A rule is about a call by its number (`on.call`: before anything has happened), or about an object
that a call has come to: a file to be opened, a program to be run, an address, a name. Rules about
objects hold for all calls that come to such objects: a program chooses which one it makes.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from sentry.syscalls.registry import CO_COROUTINE, NUMBERS

MAX_RULES: Final = 1024
OPENS: Final = ("open", "openat", "openat2", "creat", "open_by_handle_at", "acct")
RUNS: Final = ("execve", "execveat")
SENDS: Final = ("connect", "sendto", "sendmsg", "sendmmsg")
GIVES: Final = ("link", "linkat", "rename", "renameat", "renameat2", "mount", "fsconfig")
"""Calls that give a file another name (the last two by a file system that lies over others): who
rules over names is asked about those, too."""
MOUNTS: Final = ("mount", "fsconfig")
"""Those that most often give none: who rules over all names is asked about layers alone."""
FAMILIES: Final = (
    OPENS, RUNS, ("bind",), ("link", "linkat"), ("rename", "renameat", "renameat2"),
    ("unlink", "unlinkat"), ("rmdir", "unlinkat"), ("mkdir", "mkdirat"), ("mknod", "mknodat"),
    ("symlink", "symlinkat"), ("readlink", "readlinkat"), ("chdir",), ("chroot",),
    ("stat", "lstat", "newfstatat", "statx"), ("access", "faccessat", "faccessat2"),
    ("chmod", "fchmodat", "fchmodat2"), ("chown", "lchown", "fchownat"), ("truncate",),
    ("utime", "utimes", "futimesat", "utimensat"), ("statfs",), ("mount", "move_mount"),
    ("umount2",), ("setxattr", "lsetxattr", "setxattrat"),
    ("removexattr", "lremovexattr", "removexattrat"), ("inotify_add_watch",),
)  # fmt: skip
"""Calls that do the same to an object: a rule for one of them is one for all."""
_OF: Final = {name: number for number, name in NUMBERS.items()}
_GIVES: Final = frozenset(_OF[call] for call in GIVES)
Handler = Callable[[Any], Any]


class Rule(Struct, frozen=True):
    """A handler and what it is for."""

    name: str
    kind: str
    """call, open, exec, address, path."""
    numbers: frozenset[int]
    handler: Handler
    waits: bool
    """It is a coroutine."""
    path: re.Pattern[str] | None = None
    above: re.Pattern[str] | None = None
    """Directories below which such are."""
    program: re.Pattern[str] | None = None
    networks: tuple[tuple[int, int], ...] = ()
    """(address, mask), of IPv6."""
    ports: tuple[range, ...] = ()
    protocols: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()

    @property
    def family(self) -> frozenset[int]:
        """The calls that it is for, but for those that give names."""
        return self.numbers - _GIVES

    @property
    def is_for_all(self) -> bool:
        """It has no filter but that of programs."""
        return not (self.path or self.networks or self.ports or self.protocols or self.hashes)

    def is_for_path(self, path: str) -> bool:
        """Of an object."""
        return self.path is None or self.path.fullmatch(path) is not None

    def is_for_name(self, path: str) -> bool:
        """Of a name that is given or taken: what lies below it changes its name, too."""
        return self.is_for_path(path) or (
            self.above is not None and self.above.fullmatch(path) is not None
        )


class On:
    """`@on("openat", path="/etc/**")`, `@on.connect`, `@on.execve(hash=…)`, `@on.call(…)`."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def __call__(self, call: str, **filters: Any) -> Any:
        """An object that this call, or one like it, comes to; of other calls as `call`."""
        _number(call)
        if call in OPENS:
            return self._ruled("open", OPENS, filters)
        if call in RUNS:
            return self._ruled("exec", RUNS, filters)
        if call in SENDS:
            return self._ruled("address", SENDS if call == "connect" else (call,), filters)
        if call == "bind":
            return self._ruled("address", ("bind",), filters)
        family = next((family for family in FAMILIES if call in family), None)
        if family is None or "path" not in filters:
            return self.call(call, **filters)
        return self._ruled("path", family, filters)

    def call(self, *calls: str, **filters: Any) -> Any:
        """These calls, before anything has happened."""
        return self._ruled("call", calls, filters)

    def other_calls(self, *allowed: str) -> Any:
        """All calls but these, before anything has happened."""
        numbers = {_number(call) for call in allowed}
        rest = [name for name, number in _OF.items() if number not in numbers]
        return self._ruled("call", rest, {})

    def open(self, handler: Handler | None = None, /, **filters: Any) -> Any:
        """A file is about to be opened or made, whichever call does it."""
        return self._either("open", OPENS, handler, filters)

    def execve(self, handler: Handler | None = None, /, **filters: Any) -> Any:
        """A program is about to be run, a script's interpreter, a program's loader."""
        return self._either("exec", RUNS, handler, filters)

    def connect(self, handler: Handler | None = None, /, **filters: Any) -> Any:
        """An address is about to be connected or sent to."""
        return self._either("address", SENDS, handler, filters)

    def bind(self, handler: Handler | None = None, /, **filters: Any) -> Any:
        """A socket is about to get an address."""
        return self._either("address", ("bind",), handler, filters)

    def _either(
        self, kind: str, calls: Iterable[str], handler: Handler | None, filters: dict[str, Any]
    ) -> Any:
        decorate = self._ruled(kind, calls, filters)
        return decorate if handler is None else decorate(handler)

    def _ruled(self, kind: str, calls: Iterable[str], filters: dict[str, Any]) -> Any:
        numbers = frozenset(_number(call) for call in calls)
        if not numbers:
            raise ValueError("a rule without a call")
        if kind in ("open", "path", "address") and "path" in filters:
            numbers |= _GIVES
        made = _checked(kind, filters)

        def decorate(handler: Handler) -> Handler:
            code = getattr(handler, "__code__", None)
            if code is None:
                raise TypeError(f"{handler!r} is no function")
            if len(self.rules) >= MAX_RULES:
                raise ValueError(f"more than {MAX_RULES} handlers")
            waits = bool(code.co_flags & CO_COROUTINE)
            name = getattr(handler, "__name__", "handler")
            self.rules.append(Rule(name, kind, numbers, handler, waits, **made))
            return handler

        return decorate


def _number(call: str) -> int:
    if call not in _OF:
        raise ValueError(f"no system call is named {call!r}")
    return _OF[call]


_KNOWN: Final = {
    "call": {"program"}, "open": {"program", "path"}, "path": {"program", "path"},
    "exec": {"program", "path", "hash"},
    "address": {"program", "address", "path", "port", "protocol"},
}  # fmt: skip


def _checked(kind: str, filters: dict[str, Any]) -> dict[str, Any]:
    unknown = filters.keys() - _KNOWN[kind]
    if unknown:
        raise ValueError(f"{kind} has no filter {sorted(unknown)[0]!r}")
    made: dict[str, Any] = {}
    if "path" in filters:
        made["path"] = glob(*_texts(filters["path"]))
        made["above"] = above(*_texts(filters["path"]))
    if "program" in filters:
        made["program"] = glob(*_texts(filters["program"]))
    if "hash" in filters:
        made["hashes"] = frozenset(_hash(each) for each in _texts(filters["hash"]))
    if "address" in filters:
        made["networks"] = tuple(network(each) for each in _texts(filters["address"]))
    if "port" in filters:
        made["ports"] = _ports(filters["port"])
    if "protocol" in filters:
        made["protocols"] = frozenset(_texts(filters["protocol"]))
    return made


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(each, str) for each in found):
        raise TypeError(f"no text: {value!r}")
    return found


def _hash(text: str) -> str:
    digest = text.lower().removeprefix("sha256:")
    if re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise ValueError(f"no SHA-256: {text!r}")
    return digest


def _ports(value: int | str | Iterable[int | str]) -> tuple[range, ...]:
    found = []
    for each in (value,) if isinstance(value, (int, str)) else tuple(value):
        first, dash, last = str(each).partition("-")
        ports = range(int(first), int(last if dash else first) + 1)
        if not 0 <= ports.start < ports.stop <= 65536:
            raise ValueError(f"no port: {each!r}")
        found.append(ports)
    return tuple(found)


def glob(*patterns: str) -> re.Pattern[str]:
    """`*` is within a name, `**` any number of names, `?` one character."""
    return re.compile("|".join(map(_expression, patterns)), re.DOTALL)


def _expression(pattern: str) -> str:
    """In time that grows with a path's length alone, whatever names a program chooses and however
    deep it makes its directories: what stands between two wildcards is looked for once, for where
    it ends first leaves most to the rest. (So it is: all places where it fits have as many
    slashes.)"""
    *parts, last = pattern.split("**")
    if not parts:
        return _names(last, is_end=True)
    first, *middle = (_names(part, is_end=False) for part in parts)
    found = (f"(?>.*?{part})" for part in middle)
    return "".join([f"(?>{first})", *found, ".*", _names(last, is_end=True)])


def _names(part: str, *, is_end: bool) -> str:
    """Names and slashes between them, without `**`. `is_end`: nothing follows."""
    names = part.split("/")
    ends = (is_end or number < len(names) for number in range(1, len(names) + 1))
    return "/".join(_name(name, is_whole=end) for name, end in zip(names, ends, strict=True))


def _name(name: str, *, is_whole: bool) -> str:
    """Of a name, or (else) of as much of it as has to be there."""
    first, *rest = ("".join(map(_character, word)) for word in name.split("*"))
    last = [f"[^/]*{rest.pop()}"] if rest and is_whole else []
    return "".join([first, *(f"(?>[^/]*?{word})" for word in rest), *last])


def _character(character: str) -> str:
    return "[^/]" if character == "?" else re.escape(character)


def above(*patterns: str) -> re.Pattern[str]:
    """The directories below which there are names that match."""
    heads = set()
    for pattern in patterns:
        parts = pattern.split("/")
        for end in range(1, len(parts) + 1):
            name, wide, _ = parts[end - 1].partition("**")
            if wide:  # at any depth from here on
                heads.add("/".join([*parts[: end - 1], name + wide]))
                break
            if 1 < end < len(parts):
                heads.add("/".join(parts[:end]))
    return glob(*sorted(heads))


def completed(rules: list[Rule]) -> list[Rule]:
    """Where some rules have paths of files that are opened, or of Unix sockets, one without is for
    all the others: it is asked about names that are given, too, else what it would deny got a name
    that is allowed."""
    with_path = [rule for rule in rules if rule.path is not None]
    opens = any(rule.kind == "open" for rule in with_path)

    def is_asked(rule: Rule) -> bool:
        if rule.kind == "open":
            return opens
        return rule.kind == "address" and rule.is_for_all and any(
            rule.numbers & each.family for each in with_path if each.kind == "address"
        )

    return [
        replace(rule, numbers=rule.numbers | _GIVES) if is_asked(rule) else rule for rule in rules
    ]


def network(text: str) -> tuple[int, int]:
    """(address, mask) of 10.0.0.0/8, 2001:db8::/32, 192.0.2.1. Raises: ValueError."""
    address, slash, length = text.partition("/")
    try:
        value = number_of(address)
    except OSError:
        raise ValueError(f"no address: {text!r}") from None
    most = 128 if ":" in address else 32
    bits = int(length) if slash else most
    if not 0 <= bits <= most:
        raise ValueError(f"no network: {text!r}")
    mask = (1 << 128) - (1 << most - bits)
    return value & mask, mask


def number_of(address: str) -> int:
    """An address of IPv6 as a number; of IPv4 the one that it is mapped to. Raises: OSError."""
    if ":" in address:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, address), "big")
    return 0xFFFF << 32 | int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")
