"""How one system-call argument is decoded and shown: the marks inside `Annotated`.

A mark gives the Python expression that turns the raw register (an unsigned 64-bit int named by
`raw`) into what the handler gets. The decorator in registry.py compiles these expressions into one
flat function per call; nothing here runs per call but the helpers that the expressions name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sentry.abi.layout import Layout
from sentry.errors import EFAULT, EINVAL, Errno
from sentry.syscalls.show import (
    Show,
    quote,
    show_choice,
    show_dirfd,
    show_flags,
    show_hex,
    show_id,
    show_mode,
    show_path,
    show_s32,
    show_s64,
    show_string,
    show_struct,
    show_u32,
    show_unsigned,
)

if TYPE_CHECKING:
    from sentry.kernel.task import Task

__all__ = [
    "Arg", "Show", "StructOut", "UserIn", "UserOut", "UserPath", "check_flags", "cstr", "file",
    "flags", "in_", "out", "out_addr", "path", "path_later", "quote", "reader", "show_choice",
    "show_dirfd", "show_flags",
    "show_hex", "show_id", "show_mode", "show_path", "show_s32", "show_s64", "show_string",
    "show_struct", "show_u32", "show_unsigned", "signed", "struct_in", "struct_out", "unsigned",
]  # fmt: skip

class Arg(Struct, frozen=True):
    """One argument: `source` is an expression over `raw` and `task`; `names` are what it uses."""

    source: str
    show: Show = show_hex
    names: Mapping[str, Any] = None  # type: ignore[assignment]
    is_fd: bool = False
    is_out: bool = False
    """The program finds the result there: traces show it when the call is over."""


def unsigned(bits: int, show: Show | None = None) -> Arg:
    """The low bits, unsigned."""
    if bits == 64:
        return Arg("{raw}", show or show_unsigned)
    return Arg(f"{{raw}} & {(1 << bits) - 1:#x}", show or show_u32)


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
    return Arg("task.mm.read_path({raw})", show_path)


def path_later() -> Arg:
    """`path`, which the handler reads."""
    return Arg("UserPath(task, {raw})", show_path, {"UserPath": UserPath})


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


class UserPath:
    """A path name that the handler reads when it has checked other things first: once.

    A call that is made again (sentry/wait/again.py) goes on with what was read.
    """

    __slots__ = ("addr", "path", "task")

    def __init__(self, task: Task, addr: int, path: bytes | None = None) -> None:
        self.task = task
        self.addr = addr
        self.path: bytes | Errno | None = path
        """What was read, or why that could not be."""

    def __bool__(self) -> bool:
        return self.addr != 0

    def read(self) -> bytes:
        """getname(). Raises: EFAULT, ENAMETOOLONG."""
        path = self.path
        if path is None:
            found: bytes = self.task.mm.read_path(self.addr)
            self.path = found
            return found
        if isinstance(path, Errno):
            raise path
        return path

    def settle(self) -> None:
        """Read it now, for who looks at it first; an error is the handler's, in turn."""
        try:
            self.read()
        except Errno as error:
            self.path = error.with_traceback(None)


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
    return Arg("UserOut(task, {raw})", show_hex, {"UserOut": UserOut}, is_out=True)


def out_addr() -> Arg:
    """The address of a result, as a number: for hot calls."""
    return Arg("{raw}", show_hex, is_out=True)


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
        is_out=True,
    )
