"""The table of system calls: one typed declaration each.

`@syscall(number)` names a handler. Its annotations are read once, at the first call, and compiled
into a flat decoder: raw registers in, handler called. The declaration also drives strace, the
compatibility table, the monitoring points and the fuzzers. Arguments are decoded in the order of
the parameters, or in `order`, which names the parameters in the order in which Linux checks them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cached_property, partial
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from sentry.abi import unistd
from sentry.syscalls.args import Arg
from sentry.syscalls.index import MODULES
from sentry.wait.again import NotNow
from sentry.wait.eager import eager
from sentry.wait.sleep import continued

if TYPE_CHECKING:
    from sentry.kernel.task import Task

Handler = Callable[..., Any]
F = TypeVar("F", bound=Handler)

NUMBERS = {value: name for name, value in vars(unistd).items() if isinstance(value, int)}
TABLE_SIZE = 512
CO_COROUTINE = 0x80
"""code.co_flags of `async def`: inspect.CO_COROUTINE."""


class Declaration:
    """One system call.

    What is derived from the handler's annotations is made when it is first asked for: a sandbox
    uses a fraction of the table, and all of it would be a third of the time of a start.
    """

    def __init__(
        self,
        number: int,
        name: str,
        handler: Handler,
        partial: str = "",
        order: tuple[str, ...] = (),
        counts: str = "",
    ) -> None:
        self.number = number
        self.name = name
        self.handler = handler
        self.partial = partial
        self.order = order
        self.counts = counts
        self.observed = True

    @cached_property
    def module(self) -> str:
        """Where it is declared."""
        found = (name for name, numbers in MODULES.items() if self.number in numbers)
        return f"{__package__}.{next(found)}"

    @cached_property
    def args(self) -> list[tuple[str, Arg]]:
        """(parameter, mark) of every parameter after the task."""
        return arguments(self)

    @cached_property
    def call(self) -> Callable[..., Any]:
        """(task, a0 … a5) → what the handler gives: an int, None, or a coroutine.

        Where the handler was compiled ahead, so was this (ci/ahead/decoders.py).
        """
        if not isinstance(self.handler, FunctionType):
            there = importlib.import_module(decoders_of(self.module))
            compiled: Callable[..., Any] = getattr(there, f"decode_{self.name}")
            return compiled
        return compile_decoder(
            self.name, self.handler, self.args, self.order, self.counts,
            sleeps=signature(self.number, self.handler)[0],
        )  # fmt: skip

    @cached_property
    def doc(self) -> str:
        """The handler's docstring."""
        import inspect  # noqa: PLC0415  for who reads the table, not for a sandbox

        return inspect.getdoc(self.handler) or ""

    def first_call(self, task: Task, *raw: int) -> Any:
        """Stands in the table until the call is made; then its decoder does."""
        CALLS[self.number] = self.call
        return self.call(task, *raw)


ABSENT: dict[int, str] = {}
"""Why there is no such call."""
TABLE: list[Declaration | None] = [None] * TABLE_SIZE
CALLS: list[Callable[..., Any] | None] = [None] * TABLE_SIZE
"""`TABLE[n].call`, for the dispatch; `first_call` before it is made."""


def syscall(
    number: int, *, partial: str = "", order: tuple[str, ...] = (), counts: str = ""
) -> Callable[[F], F]:
    """Declare the handler of system call `number` (x86-64).

    What it gives `counts` in /proc/PID/io as bytes read ("r"), written ("w") or both ("rw").
    """

    def declare(handler: F) -> F:
        name = handler.__name__.removeprefix("sys_")
        if NUMBERS.get(number) != name.rstrip("_"):
            raise TypeError(f"system call {number} is {NUMBERS.get(number)}, not {name}")
        if TABLE[number] is not None:
            raise TypeError(f"system call {name} is declared twice")
        declaration = Declaration(number, name, handler, partial, order, counts)
        TABLE[number] = declaration
        CALLS[number] = declaration.first_call
        return handler

    return declare


def absent(number: int, why: str) -> None:
    """Declare that Linux has a call, and that programs get ENOSYS here."""
    if number not in NUMBERS or number in ABSENT:
        raise TypeError(f"system call {number} is unknown, or absent already")
    ABSENT[number] = why


def decoders_of(module: str) -> str:
    """The module that there is of the decoders of a module's calls, once they are compiled."""
    return f"{__package__}.decode_{module.removeprefix(f'{__package__}.').replace('.', '_')}"


def signature(number: int, handler: Handler) -> tuple[bool, dict[str, str]]:
    """Whether it is a coroutine, and the annotations of the parameters after the task.

    A handler that was compiled ahead does not tell: `signatures` does, as it was written.
    """
    if not isinstance(handler, FunctionType):
        from sentry.syscalls.signatures import SIGNATURES  # noqa: PLC0415  else nobody needs it

        sleeps, text = SIGNATURES[number]
        return sleeps, dict(each.split(": ") for each in text.split(", ")) if text else {}
    code = handler.__code__
    names = code.co_varnames[1 : code.co_argcount]
    hints = {name: handler.__annotations__[name] for name in names}
    return bool(code.co_flags & CO_COROUTINE), hints


def arguments(declaration: Declaration) -> list[tuple[str, Arg]]:
    """(parameter, mark) of every parameter after the task."""
    handler = declaration.handler
    written = isinstance(handler, FunctionType)
    scope = _Lenient(handler.__globals__ if written else vars(sys.modules[declaration.module]))
    result = []
    for name, text in signature(declaration.number, handler)[1].items():
        hint = eval(text, {}, scope)
        marks = (
            [m for m in get_args(hint)[1:] if isinstance(m, Arg)]
            if get_origin(hint) is Annotated
            else []
        )
        if len(marks) != 1:
            raise TypeError(f"{handler.__name__}: parameter {name} has no argument type")
        result.append((name, marks[0]))
    if len(result) > 6:
        raise TypeError(f"{handler.__name__} has more than six arguments")
    return result


class _Lenient(dict[str, Any]):
    """Names that exist only for the type checker (Task) resolve to Any."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)

    def __missing__(self, _: str) -> Any:
        return Any


def compile_decoder(
    name: str,
    handler: Handler,
    args: list[tuple[str, Arg]],
    order: tuple[str, ...] = (),
    counts: str = "",
    *,
    sleeps: bool = False,
) -> Callable[..., Any]:
    """The function that `decoder` writes, for one handler."""
    scope: dict[str, Any] = {
        "NotNow": NotNow, "counted": counted, "eager": eager, "eagerly": eagerly,
        "handler": handler, "partial": partial, "recounted": recounted,
    }  # fmt: skip
    for _, mark in args:
        scope.update(mark.names or {})
    lines = decoder(name, "handler", args, order, counts, sleeps=sleeps)
    exec("\n".join(lines), scope)  # compile(): 124 classes of syntax, 0.25 MiB
    call: Callable[..., Any] = scope[f"decode_{name}"]
    return call


def decoder(
    name: str,
    handler: str,
    args: list[tuple[str, Arg]],
    order: tuple[str, ...] = (),
    counts: str = "",
    *,
    sleeps: bool = False,
) -> list[str]:
    """Lines of `def decode_NAME(task, a0, …, a5)` for the handler of this name.

    A call that is made again (sentry/wait/again.py) gets the values that were decoded the first
    time, and keeps the files among them in use.
    """
    raw = {param: f"a{i}" for i, (param, _) in enumerate(args)}
    marks = dict(args)
    sequence = list(order) + [p for p, _ in args if p not in order]
    registers = ", ".join(f"a{i}: int" for i in range(6))
    lines = [f"def decode_{name}(task: Task, {registers}) -> Any:"]
    for param in sequence:
        lines.append(f"    v_{param} = {marks[param].source.replace('{raw}', raw[param])}")
    values = ", ".join(["task", *(f"v_{p}" for p, _ in args)])
    rest, result = handler, f"{handler}({values})"
    if sleeps:
        result = f"eager({result})"
        rest = f"partial(eagerly, {rest})"
    if counts:
        rest = f"partial(recounted, {counts!r}, {rest})"
    files = "".join(f"v_{p}, " for p, mark in args if mark.is_fd)
    lines += [
        "    try:",
        f"        result: Any = {result}",
        "    except NotNow as need:",
        f"        need.attempt = partial({rest}, {values})",
        *([f"        need.call.hold_files({files})"] if files else []),
        "        raise",
    ]
    if counts:
        lines.append("    if result.__class__ is not int:")
        lines.append(f"        return counted(task, result, {counts!r})")
        lines.extend(f"    task.sysc{c} += 1; task.{c}char += result" for c in counts)
    lines.append("    return result")
    return lines


def eagerly(handler: Handler, task: Task, *values: Any) -> Any:
    """A handler that is a coroutine, run as far as it goes without sleeping."""
    return eager(handler(task, *values))


def recounted(counts: str, rest: Handler, task: Task, *values: Any) -> Any:
    """A call that is made again and counts in /proc/PID/io."""
    result = rest(task, *values)
    if isinstance(result, int):
        return _COUNTS[counts](task, result)
    return counted(task, result, counts)


def counted(task: Task, rest: Any, counts: str) -> Any:
    """The rest of a call that counts in /proc/PID/io."""
    return continued(rest, partial(_COUNTS[counts], task))


def _count_read(task: Task, size: int) -> int:
    task.syscr += 1
    task.rchar += size
    return size


def _count_written(task: Task, size: int) -> int:
    task.syscw += 1
    task.wchar += size
    return size


def _count_copied(task: Task, size: int) -> int:
    return _count_written(task, _count_read(task, size))


_COUNTS = {"r": _count_read, "w": _count_written, "rw": _count_copied}


def describe(task: Task, number: int, values: tuple[int, ...]) -> str:
    """`name(arg, …)` in strace's format, from the declaration."""
    declaration = TABLE[number] if 0 <= number < TABLE_SIZE else None
    if declaration is None:
        name = NUMBERS.get(number, f"syscall_{number:#x}")
        return f"{name}({', '.join(f'{v:#x}' for v in values)})"
    shown = (mark.show(task, v) for (_, mark), v in zip(declaration.args, values, strict=False))
    return f"{declaration.name}({', '.join(shown)})"
