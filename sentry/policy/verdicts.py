"""What a handler of a policy may say of a call."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from sentry.errors import EPERM, numbers

_NUMBERS: Final = numbers()
_NAMES: Final = {number: name for name, number in _NUMBERS.items()}
_ALIASES: Final = {"EWOULDBLOCK": "EAGAIN", "EDEADLOCK": "EDEADLK", "ENOTSUP": "EOPNOTSUPP"}


class Verdict(Struct, frozen=True):
    """One of ALLOW, DENY, KILL, RESULT(number), CHANGE(argument=value, …)."""


class Allow(Verdict, frozen=True):
    """The call is made; no other handler is asked."""

    def __str__(self) -> str:
        return "allow"


class Deny(Verdict, frozen=True):
    """The call fails: DENY is EPERM, DENY("EACCES") and DENY(13) another error."""

    errno: int = EPERM.number

    def __call__(self, errno: int | str) -> Deny:
        number = errno_of(errno) if isinstance(errno, str) else errno
        if number not in _NAMES:
            raise ValueError(f"no number of an error: {errno!r}")
        return Deny(number)

    def __str__(self) -> str:
        return f"deny {_NAMES[self.errno]}"


class Kill(Verdict, frozen=True):
    """The process dies of SIGSYS."""

    def __str__(self) -> str:
        return "kill"


class Result(Verdict, frozen=True):
    """The call is not made, and the program is told that it gave this."""

    value: int

    def __str__(self) -> str:
        return f"result {self.value}"


class Change(Verdict, frozen=True):
    """The call is made with other arguments, and judged once more."""

    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"change {', '.join(self.arguments)}"


def errno_of(name: str) -> int:
    """The number of an error's name. Raises: ValueError."""
    try:
        return _NUMBERS[_ALIASES.get(name, name)]
    except KeyError:
        raise ValueError(f"no error is called {name!r}") from None


def parsed(text: str) -> Verdict:
    """A verdict in words: allow, deny, deny EACCES, kill, result 0. Raises: ValueError."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if word == "deny":
        return DENY(int(rest) if rest.isdecimal() else rest) if rest else DENY
    if word == "result":
        return Result(_result(rest))
    if word in ("allow", "kill") and not rest:
        return ALLOW if word == "allow" else KILL
    raise ValueError(f"no verdict: {text!r} (allow, deny [ERROR], kill, result NUMBER)")


def _result(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 63:
        raise ValueError(f"no result of a call: {text}")
    return value


def RESULT(value: int) -> Result:
    """The call is not made, and the program is told that it gave this number."""
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError(f"no result of a call: {value!r}")
    return Result(value)


def CHANGE(**arguments: Any) -> Change:
    """The call is made with these arguments instead, by their names."""
    return Change(arguments)


ALLOW: Final = Allow()
DENY: Final = Deny()
KILL: Final = Kill()
