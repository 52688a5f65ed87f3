"""How arguments look in a trace: strace(1)'s notation.

A `Show` turns a raw register into text. It may look at the program's memory; what cannot be read
now is shown as an address, as strace does.
"""

from __future__ import annotations

import stat as modes
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sentry.abi.resource import RLIM_INFINITY
from sentry.errors import Errno
from sentry.mm.errors import NeedsFault

if TYPE_CHECKING:
    from sentry.abi.layout import Layout
    from sentry.kernel.task import Task

Show = Callable[["Task", int], str]

STRING_LIMIT = 32
"""Bytes of data shown: strace -s."""
PATH_LIMIT = 4096
VECTOR_LIMIT = 32
"""Elements of an array shown."""
_ESCAPES = {9: "\\t", 10: "\\n", 13: "\\r", 11: "\\v", 12: "\\f", 34: '\\"', 92: "\\\\"}
_KINDS = {
    modes.S_IFREG: "S_IFREG", modes.S_IFDIR: "S_IFDIR", modes.S_IFLNK: "S_IFLNK",
    modes.S_IFCHR: "S_IFCHR", modes.S_IFBLK: "S_IFBLK", modes.S_IFIFO: "S_IFIFO",
    modes.S_IFSOCK: "S_IFSOCK",
}  # fmt: skip


def peek(task: Task, addr: int, count: int) -> bytes | None:
    """Bytes of the program's memory if they are there now."""
    try:
        return task.mm.read(addr, count)
    except Errno:
        return None
    except NeedsFault:
        return None


def peek_string(task: Task, addr: int, limit: int) -> bytes | None:
    """A C string, or its first `limit` bytes; None if it cannot be read now."""
    text = b""
    while len(text) < limit:
        at = addr + len(text)
        part = peek(task, at, min(limit - len(text), 4096 - (at & 4095)))
        if part is None:
            return None
        end = part.find(b"\0")
        if end >= 0:
            return text + part[:end]
        text += part
    return text


def quote(text: bytes, limit: int = STRING_LIMIT) -> str:
    """Bytes in C notation; `...` after what is cut."""
    cut = text[:limit]
    body = []
    for i, byte in enumerate(cut):
        if byte in _ESCAPES:
            body.append(_ESCAPES[byte])
        elif 32 <= byte < 127:
            body.append(chr(byte))
        else:
            digit_follows = i + 1 < len(cut) and 48 <= cut[i + 1] < 58
            body.append(f"\\{byte:03o}" if digit_follows else f"\\{byte:o}")
    return '"' + "".join(body) + '"' + ("..." if len(text) > limit else "")


def show_hex(_: Task, raw: int) -> str:
    """An address."""
    return f"{raw:#x}" if raw else "NULL"


def show_unsigned(_: Task, raw: int) -> str:
    """An unsigned number."""
    return str(raw)


def show_u32(_: Task, raw: int) -> str:
    """A C unsigned int."""
    return str(raw & 0xFFFFFFFF)


def show_s32(_: Task, raw: int) -> str:
    """A C int."""
    return str((raw & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)


def show_s64(_: Task, raw: int) -> str:
    """A C long."""
    return str((raw ^ (1 << 63)) - (1 << 63))


def show_id(_: Task, raw: int) -> str:
    """uid_t or gid_t: -1 means unchanged."""
    value = raw & 0xFFFFFFFF
    return "-1" if value == 0xFFFFFFFF else str(value)


def show_mode(_: Task, raw: int) -> str:
    """umode_t."""
    return mode_text(raw & 0xFFFF)


def mode_text(mode: int) -> str:
    """S_IFREG|0644."""
    kind = _KINDS.get(mode & 0o170000)
    bits = f"0{mode & 0o7777:03o}"
    return f"{kind}|{bits}" if kind else bits


def show_dirfd(task: Task, raw: int) -> str:
    """A directory descriptor."""
    return "AT_FDCWD" if raw & 0xFFFFFFFF == 0xFFFFFF9C else show_s32(task, raw)


def show_string(task: Task, raw: int) -> str:
    """A C string."""
    return _shown(task, raw, STRING_LIMIT)


def show_path(task: Task, raw: int) -> str:
    """A path: never cut."""
    return _shown(task, raw, PATH_LIMIT)


def _shown(task: Task, raw: int, limit: int) -> str:
    if not raw:
        return "NULL"
    text = peek_string(task, raw, limit + 1)
    return f"{raw:#x}" if text is None else quote(text, limit)


def show_strings(task: Task, raw: int) -> str:
    """A null-terminated array of strings (argv)."""
    if not raw:
        return "NULL"
    shown: list[str] = []
    while True:
        word = peek(task, raw + 8 * len(shown), 8)
        if word is None:
            return f"{raw:#x}"
        pointer = int.from_bytes(word, "little")
        if not pointer:
            break
        if len(shown) == VECTOR_LIMIT:
            shown.append("...")
            break
        shown.append(show_string(task, pointer))
    return "[" + ", ".join(shown) + "]"


def show_environment(task: Task, raw: int) -> str:
    """envp: how many there are."""
    if not raw:
        return "NULL"
    count = 0
    while count < 100_000:
        word = peek(task, raw + 8 * count, 8)
        if word is None:
            return f"{raw:#x}"
        if word == bytes(8):
            break
        count += 1
    return f"{raw:#x} /* {count} var{'' if count == 1 else 's'} */"


def flags_text(names: Mapping[str, int], value: int, zero: str = "0") -> str:
    """A set of bits by their names; names of several bits come first."""
    pairs = sorted(
        ((n, v) for n, v in names.items() if v and isinstance(v, int)),
        key=lambda pair: -pair[1].bit_count(),
    )
    rest, found = value, []
    for name, bits in pairs:
        if rest & bits == bits:
            found.append((bits, name))
            rest &= ~bits
    text = [name for _, name in sorted(found)]
    if rest:
        text.append(f"{rest:#x}")
    return "|".join(text) or zero


def show_flags(names: Mapping[str, int], zero: str = "0") -> Show:
    """A set of bits by their names; what has no name is added as a number."""
    none = next((n for n, v in names.items() if v == 0), zero)

    def show(_: Task, raw: int) -> str:
        return flags_text(names, raw & 0xFFFFFFFF, none)

    return show


def show_open_flags(names: Mapping[str, int]) -> Show:
    """O_*: the access mode comes first, O_RDONLY too."""
    access = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
    rest = {n: v for n, v in names.items() if n not in access}

    def show(_: Task, raw: int) -> str:
        bits = flags_text(rest, raw & 0xFFFFFFFC, "")
        return access[raw & 3] + (f"|{bits}" if bits else "")

    return show


def show_choice(names: Mapping[str, int]) -> Show:
    """One value out of several by its name."""
    by_value = {
        v & 0xFFFFFFFF: n for n, v in reversed(list(names.items())) if isinstance(v, int)
    }

    def show(_: Task, raw: int) -> str:
        return by_value.get(raw & 0xFFFFFFFF) or f"{raw & 0xFFFFFFFF:#x}"

    return show


def show_struct(layout: Layout[Any]) -> Show:
    """The fields of a struct in the program's memory."""
    printer = PRINTERS.get(layout.name, _print_fields)

    def show(task: Task, raw: int) -> str:
        if not raw:
            return "NULL"
        data = peek(task, raw, layout.size)
        return f"{raw:#x}" if data is None else "{" + printer(layout.unpack(data)) + "}"

    return show


def _print_fields(value: Any) -> str:
    return ", ".join(
        f"{name}={quote(field) if isinstance(field, bytes) else field}"
        for name, field in value._asdict().items()
    )


def _print_stat(value: Any) -> str:
    special = modes.S_ISCHR(value.st_mode) or modes.S_ISBLK(value.st_mode)
    rest = (
        f"st_rdev={value.st_rdev:#x}" if special else f"st_size={value.st_size}"
    )
    return f"st_mode={mode_text(value.st_mode)}, {rest}, ..."


def _print_utsname(value: Any) -> str:
    names = [bytes(field).split(b"\0", 1)[0] for field in value]
    return f"sysname={quote(names[0])}, nodename={quote(names[1])}, ..."


def _print_rlimit(value: Any) -> str:
    def amount(n: int) -> str:
        if n == RLIM_INFINITY:
            return "RLIM64_INFINITY"
        return f"{n // 1024}*1024" if n and n % 1024 == 0 else str(n)

    return f"rlim_cur={amount(value.rlim_cur)}, rlim_max={amount(value.rlim_max)}"


def _print_rusage(value: Any) -> str:
    user = f"{{tv_sec={value.ru_utime_tv_sec}, tv_usec={value.ru_utime_tv_usec}}}"
    system = f"{{tv_sec={value.ru_stime_tv_sec}, tv_usec={value.ru_stime_tv_usec}}}"
    return f"ru_utime={user}, ru_stime={system}, ..."


PRINTERS: Mapping[str, Callable[[Any], str]] = {
    "stat": _print_stat,
    "utsname": _print_utsname,
    "rlimit": _print_rlimit,
    "rusage": _print_rusage,
}
"""By name of the layout: structs that strace abbreviates."""
