"""How one system-call argument is decoded and shown: the marks inside `Annotated`.

A mark gives the Python expression that turns the raw register (an unsigned 64-bit int named by
`raw`) into what the handler gets. The decorator in registry.py compiles these expressions into one
flat function per call; nothing here runs per call but the helpers that the expressions name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentry.abi.layout import Layout
from sentry.errors import EFAULT, EINVAL

if TYPE_CHECKING:
    from sentry.kernel.task import Task

Show = Callable[["Task", int], str]


def show_hex(_: Task, raw: int) -> str:
    """An address as strace prints it."""
    return f"{raw:#x}" if raw else "NULL"


def show_unsigned(_: Task, raw: int) -> str:
    """An unsigned number."""
    return str(raw)


def show_s32(_: Task, raw: int) -> str:
    """A C int."""
    return str((raw & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)


def show_s64(_: Task, raw: int) -> str:
    """A C long."""
    return str((raw ^ (1 << 63)) - (1 << 63))


def show_string(task: Task, raw: int) -> str:
    """A C string in the program's memory, cut at 32 bytes as strace cuts it."""
    from sentry.errors import Errno  # noqa: PLC0415

    if not raw:
        return "NULL"
    try:
        text = task.mm.read_cstr(raw, 4096)
    except Errno:
        return f"{raw:#x}"
    return quote(text)


def quote(text: bytes, limit: int = 32) -> str:
    """Bytes in C notation, as strace does."""
    cut, escapes = (
        text[:limit],
        {9: "\\t", 10: "\\n", 13: "\\r", 11: "\\v", 12: "\\f", 34: '\\"', 92: "\\\\"},
    )
    body = "".join(escapes.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:o}") for b in cut)
    return f'"{body}"' + ("..." if len(text) > limit else "")


def show_flags(names: Mapping[str, int], zero: str = "0") -> Show:
    """A set of bits by their names; what has no name is added as a number."""
    pairs = [(n, v) for n, v in names.items() if v]
    none = next((n for n, v in names.items() if v == 0), zero)

    def show(_: Task, raw: int) -> str:
        rest, found = raw & 0xFFFFFFFF, []
        for n, v in pairs:
            if rest & v == v:
                found.append(n)
                rest &= ~v
        if rest:
            found.append(f"{rest:#x}")
        return "|".join(found) or none

    return show


def show_choice(names: Mapping[str, int]) -> Show:
    """One value out of several by its name."""
    by_value = {v: n for n, v in reversed(list(names.items()))}

    def show(_: Task, raw: int) -> str:
        return by_value.get(raw & 0xFFFFFFFF) or f"{raw:#x}"

    return show


@dataclass(frozen=True)
class Arg:
    """One argument: `source` is an expression over `raw` and `task`; `names` are what it uses."""

    source: str
    show: Show = show_hex
    names: Mapping[str, Any] = None  # type: ignore[assignment]
    is_fd: bool = False


def unsigned(bits: int, show: Show = show_unsigned) -> Arg:
    """The low bits, unsigned."""
    return Arg("{raw}" if bits == 64 else f"{{raw}} & {(1 << bits) - 1:#x}", show)


def signed(bits: int, show: Show | None = None) -> Arg:
    """The low bits in two's complement."""
    half, mask = 1 << (bits - 1), (1 << bits) - 1
    low = "{raw}" if bits == 64 else f"({{raw}} & {mask:#x})"
    return Arg(f"({low} ^ {half:#x}) - {half:#x}", show or (show_s64 if bits == 64 else show_s32))


def file(method: str) -> Arg:
    """A descriptor: `FdTable.<method>` gives the description or raises EBADF."""
    return Arg(f"task.files.{method}({{raw}} & 0xffffffff)", show_s32, is_fd=True)


def path() -> Arg:
    """getname(): at most PATH_MAX with its NUL, else ENAMETOOLONG; EFAULT."""
    return Arg("task.mm.read_path({raw})", show_string)


def cstr(limit: int) -> Arg:
    """A C string of at most `limit` bytes with its NUL, else EINVAL as strndup_user gives it."""
    return Arg(f"task.mm.read_cstr({{raw}}, {limit})", show_string)


def flags(mask: int, show: Show | None = None) -> Arg:
    """C int of bits; one outside `mask` is EINVAL."""
    return Arg(
        "check_flags({raw} & 0xffffffff, " + hex(mask) + ")",
        show or show_hex,
        {"check_flags": check_flags},
    )


def check_flags(value: int, mask: int) -> int:
    """`value`, or EINVAL when it has a bit outside `mask`."""
    if value & ~mask:
        raise EINVAL(f"flags {value:#x}")
    return value


def struct_in(layout: Layout[Any], *, null: bool = False) -> Arg:
    """A struct copied in; `None` for a null pointer if `null`, else EFAULT."""
    key = f"in_{layout.name}"
    if null:
        return Arg(
            f"{key}(task, {{raw}}) if {{raw}} else None", show_struct(layout), {key: reader(layout)}
        )
    return Arg(f"{key}(task, {{raw}})", show_struct(layout), {key: reader(layout)})


def reader(layout: Layout[Any]) -> Callable[[Task, int], Any]:
    """A function that copies one struct in."""
    unpack, size = layout.unpack, layout.size

    def read(task: Task, addr: int) -> Any:
        if not addr:
            raise EFAULT("null")
        return unpack(task.mm.read(addr, size))

    return read


def show_struct(layout: Layout[Any]) -> Show:
    """The fields of a struct in the program's memory."""

    def show(task: Task, raw: int) -> str:
        from sentry.errors import Errno  # noqa: PLC0415

        if not raw:
            return "NULL"
        try:
            value = layout.unpack(task.mm.read(raw, layout.size))
        except Errno:
            return f"{raw:#x}"
        return "{" + ", ".join(f"{k}={v}" for k, v in value._asdict().items()) + "}"

    return show


class UserOut:
    """A pointer that the handler will write through; nothing is checked until it is used."""

    __slots__ = ("_task", "addr")

    def __init__(self, task: Task, addr: int) -> None:
        self._task = task
        self.addr = addr

    def __bool__(self) -> bool:
        return self.addr != 0

    def put(self, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """Write bytes; EFAULT."""
        self._task.mm.write(self.addr + offset, data)

    def take(self, count: int) -> Any:
        """A checked, faulted-in `Dest` of `count` bytes (capped to MAX_RW_COUNT)."""
        return self._task.mm.buffer_out(self.addr, count)

    def take_iov(self, count: int) -> Any:
        """The pointer is a struct iovec array of `count` entries: a `Dest` over them."""
        return self._task.mm.buffer_out_iov(self.addr, count)


class UserIn:
    """A pointer that the handler will read through; nothing is checked until it is used."""

    __slots__ = ("_task", "addr")

    def __init__(self, task: Task, addr: int) -> None:
        self._task = task
        self.addr = addr

    def __bool__(self) -> bool:
        return self.addr != 0

    def get(self, count: int, offset: int = 0) -> bytes:
        """Read bytes; EFAULT."""
        return self._task.mm.read(self.addr + offset, count)

    def take(self, count: int) -> Any:
        """A checked, faulted-in `Source` of `count` bytes (capped to MAX_RW_COUNT)."""
        return self._task.mm.buffer_in(self.addr, count)

    def take_iov(self, count: int) -> Any:
        """The pointer is a struct iovec array of `count` entries: a `Source` over them."""
        return self._task.mm.buffer_in_iov(self.addr, count)


class StructOut:
    """Where a struct result goes."""

    __slots__ = ("_layout", "_task", "addr")

    def __init__(self, task: Task, addr: int, layout: Layout[Any]) -> None:
        self._task = task
        self._layout = layout
        self.addr = addr

    def __bool__(self) -> bool:
        return self.addr != 0

    def put(self, *fields: object) -> None:
        """Write the struct; EFAULT (also for a null pointer)."""
        self._task.mm.write(self.addr, self._layout.pack(*fields))


def out() -> Arg:
    """A `UserOut`."""
    return Arg("UserOut(task, {raw})", show_hex, {"UserOut": UserOut})


def in_() -> Arg:
    """A `UserIn`."""
    return Arg("UserIn(task, {raw})", show_hex, {"UserIn": UserIn})


def struct_out(layout: Layout[Any]) -> Arg:
    """A `StructOut`."""
    key = f"layout_{layout.name}"
    return Arg(
        f"StructOut(task, {{raw}}, {key})",
        show_struct(layout),
        {"StructOut": StructOut, key: layout},
    )
