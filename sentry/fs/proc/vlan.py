"""/proc/PID/net/vlan: which VLANs there are, and a file for each. sentry.net fills them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import S_IFREG
from sentry.errors import ENOENT
from sentry.fs.proc.owner import live_task, owner_of
from sentry.fs.pseudo.nodes import Directory, Node, TextNode

if TYPE_CHECKING:
    from sentry.fs.proc.registry import Subject
    from sentry.fs.pseudo.files import Text
    from sentry.fs.pseudo.table import TableFs

CONFIG: Final = "config"


class VlanNode(TextNode):
    """One of the files."""

    __slots__ = ("name",)

    def __init__(self, fs: TableFs, subject: Subject, name: str) -> None:
        super().__init__(fs, 0o600, partial(_show, subject, name), None, owner_of(subject))
        self.name = name


class VlanDirectory(Directory):
    """The directory."""

    __slots__ = ("_subject",)

    def __init__(self, fs: TableFs, subject: Subject) -> None:
        super().__init__(fs, 0o555, owner_of(subject))
        self._subject = subject

    def _names(self) -> list[str]:
        return [CONFIG, *live_task(self._subject).ns.net.vlan_names()]

    def names(self) -> Iterable[tuple[bytes, int]]:
        """The list, and each VLAN."""
        return [(name.encode(), S_IFREG) for name in self._names()]

    def make(self, name: bytes) -> Node | None:
        """One of them."""
        wanted = name.decode(errors="replace")
        return VlanNode(self.sb, self._subject, wanted) if wanted in self._names() else None

    def stale(self, node: Node) -> bool:
        """That VLAN is no more."""
        return isinstance(node, VlanNode) and node.name not in self._names()


def _show(subject: Subject, name: str, caller: Any) -> Text:
    namespace = live_task(subject).ns.net
    if name == CONFIG:
        text: Text = namespace.vlans()
        return text
    found: str | None = namespace.vlan(name)
    if found is None:
        raise ENOENT(name)
    return found
