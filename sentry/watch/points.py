"""All points: their names, what each tells, and what may be asked for besides.

Those of system calls come from the declarations: `syscall/NAME/enter` and `/exit` of every call,
with the message that gVisor has for it or `Syscall` with its arguments by name, and
`syscall/sysno/NUMBER/enter` and `/exit` of every number, with the registers alone. The kernel's own
are in KERNEL. Preconditions: all declarations are imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.protobuf import Signed, fields
from sentry.syscalls.registry import NUMBERS, TABLE, Declaration
from sentry.syscalls.show import show_path
from sentry.watch import context, reading
from sentry.watch import messages as m
from sentry.watch.messages import MessageType
from sentry.watch.schemas import SCHEMAS, Early, Source

if TYPE_CHECKING:
    from sentry.syscalls.args import Arg
    from sentry.watch.context import Context

LAST_RAW: Final = max(*NUMBERS, 441)
"""gVisor's end at 441, whether there is such a call or not."""
Make = Callable[[Any, tuple[int, ...], tuple[Any, ...] | None, m.Exit | None], m.CallRecord]
"""(task, registers, decoded arguments unless one could not be read, and what was read early; how it
ended) → a record."""


class Point(Struct, frozen=True):
    """One of them."""

    name: str
    type: MessageType
    optional: tuple[str, ...] = ()
    contexts: tuple[str, ...] = context.FIELDS
    number: int = -1
    """That of its system call."""
    says: str = ""
    """What happens, of the kernel's own."""


def _of_kernel(name: str, kind: MessageType, says: str, **more: Any) -> tuple[str, Point]:
    return name, Point(name, kind, says=says, **more)


_OF_SANDBOX: Final = ("time", "container_id")
KERNEL: Final[dict[str, Point]] = dict([
    _of_kernel("container/start", MessageType.CONTAINER_START,
               "the first program of a container is about to run", optional=("env",)),
    _of_kernel("sentry/clone", MessageType.SENTRY_CLONE, "a task was made"),
    _of_kernel("sentry/execve", MessageType.SENTRY_EXEC,
               "a process has become another program", optional=("binary_info",)),
    _of_kernel("sentry/exit_notify_parent", MessageType.SENTRY_EXIT_NOTIFY_PARENT,
               "a process has ended, and its parent may know",
               contexts=tuple(name for name in context.FIELDS if name != "cwd")),
    _of_kernel("sentry/task_exit", MessageType.SENTRY_TASK_EXIT, "a thread ends"),
    _of_kernel("sentry/signal_delivered", MessageType.OWN_SIGNAL,
               "a signal is about to be acted on"),
    _of_kernel("sentry/out_of_memory", MessageType.OWN_OUT_OF_MEMORY,
               "a process is killed because memory has run out"),
    _of_kernel("sentry/egress_denied", MessageType.OWN_EGRESS_DENIED,
               "the egress policy did not let something leave, or a name be asked for",
               contexts=_OF_SANDBOX),
    _of_kernel("sentry/egress_allowed", MessageType.OWN_EGRESS_ALLOWED,
               "with an egress policy: a flow begins", contexts=_OF_SANDBOX),
    _of_kernel("sentry/dns_answer", MessageType.OWN_DNS_ANSWER,
               "with an egress policy: a program is told an address", contexts=_OF_SANDBOX),
    _of_kernel("sentry/policy", MessageType.OWN_POLICY,
               "a policy has decided on a call, or learns what a program does"),
])  # fmt: skip
"""By name. `sentry/execve` is of programs that others become, and of those of `exec`."""


def find(name: str) -> Point | None:
    """The point of a name; None if there is none."""
    if name in KERNEL:
        return KERNEL[name]
    place, _, phase = name.rpartition("/")
    if phase not in ("enter", "exit") or not place.startswith("syscall/"):
        return None
    call = place.removeprefix("syscall/")
    if call.startswith("sysno/"):
        digits = call.removeprefix("sysno/")
        if not digits.isdecimal() or not digits.isascii() or str(int(digits)) != digits:
            return None
        number = int(digits)
        return Point(name, MessageType.SYSCALL_RAW, number=number) if number <= LAST_RAW else None
    declaration = _declared().get(call)
    if declaration is None:
        return None
    schema = SCHEMAS.get(call)
    kind, optional = (schema.type, schema.optional) if schema else (MessageType.SYSCALL_RAW, ())
    return Point(name, kind, optional, number=declaration.number)


def every() -> Iterator[Point]:
    """All, by name."""
    names = list(KERNEL)
    calls = [*_declared(), *(f"sysno/{number}" for number in range(LAST_RAW + 1))]
    names += [f"syscall/{call}/{phase}" for call in calls for phase in ("enter", "exit")]
    for name in sorted(names):
        point = find(name)
        assert point is not None
        yield point


def _declared() -> dict[str, Declaration]:
    return {each.name.rstrip("_"): each for each in TABLE if each is not None}


def is_raw(point: Point) -> bool:
    """With the registers alone."""
    return point.name.startswith("syscall/sysno/")


def make_raw(number: int, who: Context) -> Make:
    """The maker of `syscall/sysno/NUMBER/...`."""

    def make(task: Any, raw: Any, _values: Any, ended: Any) -> m.CallRecord:
        return m.Syscall(who(task), ended, number, *raw)

    return make


def make_typed(declaration: Declaration, asked: frozenset[str], who: Context) -> Make:
    """The maker of `syscall/NAME/...`: one flat function, from the declaration and its schema."""
    schema = SCHEMAS.get(declaration.name.rstrip("_"))
    if schema is None:
        return _make_plain(declaration, who)
    scope: dict[str, Any] = {"who": who, "kind": schema.kind, "fd_path": reading.fd_path,
                             "path": path_text}  # fmt: skip
    arguments = ["who(task)", "ended", str(declaration.number)]
    for field in fields(schema.kind)[3:]:
        source = schema.sources.get(field.name)
        if field.name in schema.optional and field.name not in asked:
            continue
        if field.name == "fd_path" and field.name in schema.optional:
            first = next(name for name in ("fd", "old_fd") if name in schema.sources)
            place = _expression(declaration, schema.sources[first], Signed, scope, first)
            arguments.append(f"fd_path=fd_path(task, {place})")
        elif source is not None:
            mark = Signed if field.signed else None
            made = _expression(declaration, source, mark, scope, field.name)
            arguments.append(f"{field.name}={made}")
    lines = [
        "def make(task, raw, values, ended):",
        "    a0, a1, a2, a3, a4, a5 = raw",
        f"    record = kind({', '.join(arguments)})",
    ]
    if issubclass(schema.kind, m.Connect):
        scope["peer"] = reading.peer
        lines.append("    record.peer = peer(record.address)")
    lines.append("    return record")
    exec("\n".join(lines), scope)
    made_function: Make = scope["make"]
    return made_function


def _expression(
    declaration: Declaration, source: Source, mark: type[Signed] | None,
    scope: dict[str, Any], field: str,
) -> str:  # fmt: skip
    """Python for one field."""
    if isinstance(source, int):
        return str(source)
    if isinstance(source, Early):
        place = len(declaration.args) + early(declaration).index(source)
        return f"values[{place}] if values is not None else []"
    if not isinstance(source, str):
        scope[f"derive_{field}"] = source
        return f"derive_{field}(task, raw, ended is not None)"
    names = [name for name, _ in declaration.args]
    index = names.index(source)
    argument = declaration.args[index][1]
    if argument.show is show_path:
        return f"path(values, {index})"
    return number(argument, f"a{index}", signed=mark is not None)


def early(declaration: Declaration) -> list[Early]:
    """What has to be read when a call begins: a maker finds it behind the decoded arguments."""
    schema = SCHEMAS.get(declaration.name.rstrip("_"))
    sources = schema.sources.values() if schema is not None else ()
    return [source for source in sources if isinstance(source, Early)]


def number(mark: Arg, register: str, *, signed: bool) -> str:
    """Python for a register as its declaration reads it, and the field has it."""
    bits = 64
    if mark.is_fd or "0xffffffff" in mark.source:
        bits = 32
    elif "0xffff" in mark.source:
        bits = 16
    low = register if bits == 64 else f"({register} & {(1 << bits) - 1:#x})"
    if not signed:
        return low
    half = 1 << bits - 1
    return f"({low} ^ {half:#x}) - {half:#x}"


def path_text(values: tuple[Any, ...] | None, index: int) -> str:
    """A path that the call was made with; empty if it could not be read."""
    value = values[index] if values is not None else None
    return reading.text(value if isinstance(value, bytes) else getattr(value, "path", None))


def _make_plain(declaration: Declaration, who: Context) -> Make:
    """Of a call that has no message of its own: with its arguments by name."""
    sysno, name = declaration.number, declaration.name.rstrip("_")
    texts = [(i, p) for i, (p, mark) in enumerate(declaration.args) if mark.show is show_path]
    rest = [(i, p, mark) for i, (p, mark) in enumerate(declaration.args)
            if mark.show is not show_path]  # fmt: skip
    body = ", ".join(
        f"{p!r}: {number(mark, f'raw[{i}]', signed=') - 0x' in mark.source or mark.is_fd)}"
        for i, p, mark in rest
    )
    scope: dict[str, Any] = {}
    exec(f"def numbers(raw):\n    return {{{body}}}", scope)
    numbers = scope["numbers"]

    def make(task: Any, raw: Any, values: Any, ended: Any) -> m.CallRecord:
        arguments = numbers(raw)
        for index, parameter in texts:
            arguments[parameter] = path_text(values, index)
        return m.Syscall(who(task), ended, sysno, *raw, **{"name": name, "args": arguments})

    return make


