"""/proc/PID/uid_map and its kin, setgroups, timens_offsets: what a new namespace is set up with.

user_namespaces(7), time_namespaces(7); kernel/user_namespace.c, kernel/time/namespace.c.
"""

from __future__ import annotations

import time
from typing import Any, Final

from sentry.abi.capability import CAP_SETFCAP, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SYS_TIME
from sentry.auth.userns import NO_ID, Extent, IdMap, UserNamespace, parse_map
from sentry.errors import EACCES, EINVAL, EPERM, ERANGE
from sentry.fs.proc.registry import View, pid_file

NEEDED: Final = {"uid": CAP_SETUID, "gid": CAP_SETGID, "projid": None}
MAX_TEXT: Final = 4096
KTIME_SEC_MAX: Final = (1 << 63) // 10**9
LATEST_NS: Final = KTIME_SEC_MAX // 2 * 10**9
"""No offset takes a clock further."""


def user_namespace(view: View) -> tuple[UserNamespace | None]:
    """The one of the process: proc_id_map_open()."""
    return (view.subject.task.creds.user_ns,)


def show_map(view: View, kind: str) -> str:
    """uid_m_show(): ids outside are those of the reader's namespace, or of the parent."""
    ns: UserNamespace | None = view.pinned[0]
    if ns is None:
        extents = view.kernel.services.host_ids.get(kind) or ((0, 0, NO_ID),)
        return "".join(f"{a:10} {b:10} {count:10}\n" for a, b, count in extents)
    lower: UserNamespace | None = view.creds.user_ns
    if lower is ns:
        lower = ns.parent

    def outside(number: int) -> int:
        return lower.table(kind).from_kernel(number) if lower is not None else number

    return "".join(
        f"{e.first:10} {outside(e.kernel_first):10} {e.size:10}\n" for e in ns.table(kind).extents
    )


def write_map(view: View, data: bytes, kind: str) -> None:
    """proc_uid_map_write(), map_write(). Raises: EPERM, EINVAL."""
    ns: UserNamespace | None = view.pinned[0]
    opener = view.creds
    if ns is None or opener.user_ns not in (ns, ns.parent):
        raise EPERM("neither the namespace's nor its parent's")
    if len(data) >= MAX_TEXT:
        raise EINVAL("too long")
    if ns.table(kind):
        raise EPERM("the map is set")
    if kind != "projid" and not opener.has_in(ns, CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    extents = parse_map(data, ns.parent, kind)
    if not is_permitted(view, ns, extents, kind):
        raise EPERM("not these ids")
    if any(e.kernel_first == NO_ID for e in extents):
        raise EPERM("ids outside are not mapped")
    setattr(ns, f"{kind}_map", IdMap(extents))
    for task in view.kernel.pids.tasks.values():
        if task.creds.user_ns is ns:
            task.ids_changed()


def is_permitted(view: View, ns: UserNamespace, extents: list[Extent], kind: str) -> bool:
    """new_idmap_permitted(): by who opened the file; for any ids also by who writes."""
    opener = view.creds
    if kind == "uid" and not may_map_root(opener, ns, extents):
        return False
    if len(extents) == 1 and extents[0].size == 1 and ns.owner == opener.euid:
        if kind == "uid" and extents[0].kernel_first == opener.euid:
            return True
        own_group = extents[0].kernel_first == opener.egid
        if kind == "gid" and own_group and not ns.setgroups_allowed:
            return True
    needed = NEEDED[kind]
    both = opener, view.writer.creds
    return needed is None or all(each.has_in(ns.parent, needed) for each in both)


def may_map_root(writer: Any, ns: UserNamespace, extents: list[Extent]) -> bool:
    """verify_root_map(): root of the parent is for those who could have set file capabilities."""
    root = 0 if ns.parent is None else ns.parent.uid_map.to_kernel(0)
    if not any(e.kernel_first <= root < e.kernel_first + e.size for e in extents):
        return True
    if writer.user_ns is ns:
        return bool(ns.maker_had_setfcap)
    return bool(writer.has_in(ns.parent, CAP_SETFCAP))


def _declare(kind: str) -> None:
    def store(view: View, data: bytes) -> None:
        write_map(view, data, kind)

    @pid_file(f"{kind}_map", 0o644, store=store, pin=user_namespace)
    def show(view: View) -> str:
        return show_map(view, kind)


for _kind in NEEDED:
    _declare(_kind)


def write_setgroups(view: View, data: bytes) -> None:
    """proc_setgroups_write(). Raises: EINVAL, EPERM."""
    ns: UserNamespace | None = view.pinned[0]
    if not view.creds.has_in(ns, CAP_SYS_ADMIN):
        raise EACCES("CAP_SYS_ADMIN")
    word = data.rstrip(b"\0").rstrip(b"\n\t ")
    if word not in (b"allow", b"deny") or len(data) >= 8:
        raise EINVAL(f"{data[:20]!r}")
    if word == b"allow":
        if ns is not None and not ns.setgroups_allowed:
            raise EPERM("denied for good")
        return
    if ns is None or ns.gid_map:
        raise EPERM("the groups are mapped")
    ns.setgroups_allowed = False


@pid_file("setgroups", 0o644, store=write_setgroups, pin=user_namespace)
def setgroups(view: View) -> str:
    """user_namespaces(7)."""
    (ns,) = view.pinned
    return "allow\n" if ns is None or ns.setgroups_allowed else "deny\n"


CLOCKS: Final = {b"monotonic": "monotonic", b"1": "monotonic", b"boottime": "boottime",
                 b"7": "boottime"}  # fmt: skip


def write_offsets(view: View, data: bytes) -> None:
    """timens_offsets_write(), proc_timens_set_offset(). Raises: EINVAL, EPERM, EACCES, ERANGE."""
    wanted: dict[str, int] = {}
    lines = data.rstrip(b"\0").removesuffix(b"\n").split(b"\n")
    if len(data) >= MAX_TEXT or len(lines) > 2:
        raise EINVAL("too long")
    for line in lines:
        words = line.split()
        numbers = words[1:]
        if len(words) != 3 or words[0] not in CLOCKS or not numbers[1].isdigit():
            raise EINVAL(f"{line[:40]!r}")
        if not numbers[0].removeprefix(b"-").isdigit() or int(numbers[1]) >= 10**9:
            raise EINVAL(f"{line[:40]!r}")
        wanted[CLOCKS[words[0]]] = int(numbers[0]) * 10**9 + int(numbers[1])
    ns = view.subject.task.ns.time_for_children
    if not view.creds.has_in(ns.owner, CAP_SYS_TIME):
        raise EPERM("CAP_SYS_TIME")
    now = {
        "monotonic": view.kernel.clock.now_ns(),
        "boottime": view.kernel.clock.shown_ns(time.CLOCK_BOOTTIME),
    }
    for name, offset in wanted.items():
        if not 0 <= now[name] + offset <= LATEST_NS:
            raise ERANGE(f"{name} {offset}")
    if ns.frozen:
        raise EACCES("the first namespace, or one with tasks in it")
    for name, offset in wanted.items():
        setattr(ns, f"{name}_ns", offset)


@pid_file("timens_offsets", 0o644, store=write_offsets, where="process")
def timens_offsets(view: View) -> str:
    """Of the namespace that the children will be in."""
    ns = view.subject.task.ns.time_for_children
    rows = (("monotonic", ns.monotonic_ns), ("boottime", ns.boottime_ns))
    return "".join(f"{name:10} {ns // 10**9:10} {ns % 10**9:9}\n" for name, ns in rows)
