"""`load`: a policy's source becomes rules.

It runs with a chosen set of builtins and imports nothing but `runsc.policy`, whose names are here.
That keeps accidents away from the kernel in whose thread it runs; it is no wall against who wrote
it: a policy is trusted as its operator is.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, Protocol

from sentry.errors import EINVAL
from sentry.policy import verdicts
from sentry.policy.event import Event
from sentry.policy.guard import FILENAME, TooLong
from sentry.policy.outside import Ask
from sentry.policy.rules import On, Rule, completed, network, number_of

MAX_SOURCE: Final = 1 << 16
"""Bytes: compiling them takes a tenth of a second."""
NAME: Final = "runsc.policy"
_BUILTINS: Final = (
    "abs", "all", "any", "ascii", "bin", "bool", "bytearray", "bytes", "callable", "chr",
    "classmethod", "dict", "divmod", "enumerate", "filter", "float", "format", "frozenset",
    "getattr", "hasattr", "hash", "hex", "int", "isinstance", "issubclass", "iter", "len", "list",
    "map", "max", "min", "next", "object", "oct", "ord", "pow", "property", "range", "repr",
    "reversed", "round", "set", "slice", "sorted", "staticmethod", "str", "sum", "super", "tuple",
    "type", "zip", "__build_class__", "None", "True", "False", "NotImplemented", "Ellipsis",
)  # fmt: skip


class Bounding(Protocol):
    """`Guard`, or who stands for it where nothing is bounded."""

    def load(self, function: Callable[..., Any], *arguments: Any) -> Any: ...


class Module:
    """A policy that was loaded."""

    def __init__(
        self, name: str, source: str, rules: list[Rule], *, learns: bool = False
    ) -> None:
        self.name = name
        self.source = source
        self.rules = rules
        self.learns = learns
        """It has no source: sentry.policy.learning."""


def names(on: On, log: Callable[..., object]) -> dict[str, Any]:
    """What `runsc.policy` has."""
    return {
        "ALLOW": verdicts.ALLOW, "CHANGE": verdicts.CHANGE, "DENY": verdicts.DENY,
        "KILL": verdicts.KILL, "RESULT": verdicts.RESULT, "Event": Event,
        "Verdict": verdicts.Verdict, "ask": Ask, "in_network": in_network, "log": log, "on": on,
    }  # fmt: skip


def in_network(address: str, *networks: str) -> bool:
    """Whether an address is in one of these: "10.0.0.0/8", "2001:db8::/32"."""
    try:
        value = number_of(address)
    except OSError:
        return False
    return any(value & mask == base for base, mask in map(network, networks))


def load(name: str, source: str, guard: Bounding, log: Callable[..., object]) -> Module:
    """Run a policy's module. Raises: EINVAL, with what is wrong in words."""
    if len(source) > MAX_SOURCE:
        raise EINVAL(f"{name}: a policy has at most {MAX_SOURCE} bytes")
    on = On()
    provided = ModuleType(NAME)
    vars(provided).update(names(on, log))
    vars(provided)["__all__"] = sorted(names(on, log))
    package = ModuleType("runsc")
    package.policy = provided  # type: ignore[attr-defined]
    future = ModuleType("__future__")
    future.annotations = None  # type: ignore[attr-defined]

    def limited_import(
        wanted: str, _globals: Any = None, _locals: Any = None, chosen: Any = (), level: int = 0
    ) -> ModuleType:
        if level == 0 and wanted == NAME:
            return provided if chosen else package
        if level == 0 and wanted == "runsc" and tuple(chosen or ()) == ("policy",):
            return package
        if level == 0 and wanted == "__future__":
            return future
        raise ImportError(f"a policy imports nothing but {NAME}, not {wanted!r}")

    known = {each: getattr(builtins, each) for each in _BUILTINS if hasattr(builtins, each)}
    known |= {
        each: kind for each, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    }  # fmt: skip
    known |= {"__import__": limited_import, "print": _printer(log)}
    filename = FILENAME + name
    scope: dict[str, Any] = {"__builtins__": known, "__name__": "policy"}
    try:
        code = compile(source, filename, "exec", dont_inherit=True)
        guard.load(exec, code, scope)
    except TooLong:
        raise EINVAL(f"{name}: it takes too long to be loaded") from None
    except RecursionError:
        raise EINVAL(f"{name}: it is too deep") from None
    except SyntaxError as error:
        raise EINVAL(f"{name}:{error.lineno}: {error.msg}") from None
    except BaseException as error:
        raise EINVAL(f"{name}{_line(error, filename)}: {type(error).__name__}: {error}") from None
    return Module(name, source, completed(on.rules))


def _printer(log: Callable[..., object]) -> Callable[..., None]:
    def show(*values: object, sep: str = " ", **_: object) -> None:
        log(sep.join(map(str, values)))

    return show


def _line(error: BaseException, filename: str) -> str:
    """Where in the module, if that is known."""
    found, at = "", error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == filename:
            found = f":{at.tb_lineno}"
        at = at.tb_next
    return found


def told(error: BaseException, filename_prefix: str = FILENAME) -> str:
    """A traceback of the policy's own frames: source lines are not looked for, in any file."""
    lines: list[str] = []
    at = error.__traceback__
    while at is not None and len(lines) < 16:
        code = at.tb_frame.f_code
        if code.co_filename.startswith(filename_prefix):
            place = code.co_filename.removeprefix(filename_prefix)
            lines.append(f"  {place}:{at.tb_lineno} in {code.co_name}\n")
        at = at.tb_next
    return "".join(lines) + f"{type(error).__name__}: {error}\n"
