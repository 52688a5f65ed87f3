"""/proc/sys/net/ipv4/conf, ipv6/conf: a directory for each interface of the reader's network.

`all`, `default` and `lo` are always there. What another interface has is what `default` has, each
until it is written; `sentry.net.sysctls` forgets it with the interface.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import S_IFDIR
from sentry.errors import EINVAL, ENOENT
from sentry.fs.proc.sysctl import SYSCTLS, Sysctl, SysctlNode, values_of
from sentry.fs.pseudo.nodes import (
    GeneratedDirectoryFile,
    Maker,
    Node,
    TableDirectory,
    directory_maker,
)
from sentry.vfs.dirents import Dirents
from sentry.vfs.interface import ABSENT, Absent, DirEntry, Inode

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location


def links_maker(fs: TableFs, kernel: Kernel, above: str, fixed: dict[str, Any]) -> Maker:
    """The directory `above`, with `fixed` names."""
    table = {name.encode(): directory_maker(fs, tree) for name, tree in fixed.items()}
    return lambda: LinksDirectory(fs, kernel, above, table)


class LinksDirectory(TableDirectory):
    """The directory."""

    __slots__ = ("_above", "_kernel")

    def __init__(
        self, fs: TableFs, kernel: Kernel, above: str, fixed: dict[bytes, Callable[[], Node]]
    ) -> None:
        super().__init__(fs, fixed)
        self._kernel = kernel
        self._above = above

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:  # type: ignore[override]
        """What is there for all."""
        return super().lookup_cached(name) if name in self.table else None

    def lookup_for(self, caller: Caller, name: bytes, opens: bool = False) -> Inode | Absent:
        """And for the reader."""
        return super().lookup_cached(name) if name in self.of(caller) else ABSENT

    def lookup(self, name: bytes, opens: bool = False) -> Inode | Absent:
        """Nothing can be made here."""
        return ABSENT

    def make(self, name: bytes) -> Node | None:
        """Of an interface, or of all."""
        if name in self.table:
            return super().make(name)
        prefix, which = f"{self._above}/default/", name.decode(errors="surrogateescape")
        values = {
            path.removeprefix(prefix).encode(): sysctl
            for path, sysctl in SYSCTLS.items()
            if path.startswith(prefix)
        }
        return TableDirectory(self.sb, {
            each: partial(SysctlNode, self.sb, self._kernel, _of_link(sysctl, which))
            for each, sysctl in values.items()
        })  # fmt: skip

    def of(self, caller: Any) -> list[bytes]:
        """Interfaces of the reader's network, but for those that are always there."""
        names = (name.encode(errors="surrogateescape") for name in caller.ns.net.link_names())
        return [name for name in names if name not in self.table]

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For getdents."""
        return LinksListing(location, flags)


class LinksListing(GeneratedDirectoryFile):
    """The directory, open."""

    __slots__ = ()

    def _list(self, caller: Caller) -> Dirents:
        directory = self.inode
        assert isinstance(directory, LinksDirectory)
        number, above = directory.sb.child_ino, directory.ino
        names = [*directory.table, *directory.of(caller)]
        return Dirents(DirEntry(name, number(above, name), S_IFDIR) for name in names)


def _of_link(default: Sysctl, name: str) -> Sysctl:
    """The same value of an interface."""
    *folders, _, setting = default.path.split("/")
    path = "/".join([*folders, name, setting])

    def put(who: Any, value: str) -> None:
        assert default.checked is not None
        kept, link = default.checked(value), _link(who, name)
        then = AT_ONCE.get(path[: path.index("/conf/")] + "/" + setting)
        if then is not None:
            then(who, link, int(kept))
        values_of(who, path)[path] = kept

    def get(who: Any) -> str:
        link = _link(who, name)
        if path.startswith("net/ipv6/") and setting == "mtu":
            return str(link.mtu_of_ipv6)
        return values_of(who, path).get(path) or default.get(who)

    return Sysctl(path, get, put, of_reader=True)


def _link(who: Any, name: str) -> Any:
    """The interface. Raises: ENOENT, where it is another's network, or has gone."""
    found = who.ns.net.stack.interfaces
    link = next((each for each in found if each.name == name), None)
    if link is None:
        raise ENOENT(name)
    return link


def _turn(who: Any, link: Any, number: int) -> None:
    who.ns.net.turn_ipv6(link, number == 0)


def _set_mtu(who: Any, link: Any, number: int) -> None:
    """addrconf_sysctl_mtu(). Raises: EINVAL, EPERM for one of the host's."""
    who.ns.net.stack.check_own(link.index)
    if number > link.mtu:
        raise EINVAL(f"more than {link.mtu}")
    link.ipv6_mtu = number


AT_ONCE: Final = {"net/ipv6/disable_ipv6": _turn, "net/ipv6/mtu": _set_mtu}
"""What is done with a value, beside keeping it."""
