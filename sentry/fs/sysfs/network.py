"""/sys/class/net: the interfaces that there are, now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from sentry.errors import ENODEV
from sentry.fs.pseudo.nodes import Directory, LinkNode, Maker, Node, directory_maker, put
from sentry.fs.pseudo.table import TableFs
from sentry.vfs.interface import ABSENT, Absent, Inode

COUNTERS: Final = (
    "collisions", "multicast", "rx_bytes", "rx_compressed", "rx_crc_errors", "rx_dropped",
    "rx_errors", "rx_fifo_errors", "rx_frame_errors", "rx_length_errors", "rx_missed_errors",
    "rx_nohandler", "rx_over_errors", "rx_packets", "tx_aborted_errors", "tx_bytes",
    "tx_carrier_errors", "tx_compressed", "tx_dropped", "tx_errors", "tx_fifo_errors",
    "tx_heartbeat_errors", "tx_packets", "tx_window_errors",
)  # fmt: skip
DEVICES: Final = "devices/virtual/net"
Text = Callable[[Callable[[Any], str]], Maker]
"""What makes the node of an attribute, given what it shows."""


class NetDirectory(Directory):
    """A name for each interface of a network namespace."""

    __slots__ = ("_make", "_namespace")

    def __init__(self, fs: TableFs, namespace: Any, make: Callable[[str], Node]) -> None:
        super().__init__(fs)
        self._namespace = namespace
        self._make = make

    def names(self) -> Iterable[tuple[bytes, int]]:
        """In their order. Raises: NotNow."""
        self._namespace.look()
        return [(name.encode(), self._make(name).kind) for name in self._namespace.link_names()]

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:  # type: ignore[override]
        """The host's have to be asked for."""
        return None if self._namespace.changes_by_itself else self._now(name)

    def lookup(self, name: bytes, opens: bool = False) -> Inode | Absent:
        """As it is now. Raises: NotNow."""
        self._namespace.look()
        return self._now(name)

    def _now(self, name: bytes) -> Inode | Absent:
        """One that is kept may be gone, or have another name."""
        is_there = name.decode(errors="replace") in self._namespace.link_names()
        return super().lookup_cached(name) if is_there else ABSENT

    def make(self, name: bytes) -> Node:
        """What stands for one."""
        return self._make(name.decode(errors="replace"))


def network_directories(fs: TableFs, namespace: Any, text: Text) -> dict[str, Maker]:
    """Path below /sys to what makes the directory."""

    def device(name: str) -> Node:
        tree: dict[str, Any] = {}
        for key in (*namespace.link(name), *(f"statistics/{counter}" for counter in COUNTERS)):
            put(tree, key, text(partial(_shown, namespace, name, key)))
        return directory_maker(fs, tree)()

    def link(name: str) -> Node:
        target = f"../../{DEVICES}/{name}".encode()
        return LinkNode(fs, lambda _: target)

    return {
        DEVICES: lambda: NetDirectory(fs, namespace, device),
        "class/net": lambda: NetDirectory(fs, namespace, link),
    }


def _shown(namespace: Any, name: str, key: str, _caller: Any) -> str:
    """The text of an attribute. Raises: ENODEV when the interface is gone, NotNow."""
    namespace.look()
    attributes: dict[str, str] = namespace.link(name)
    if not attributes:
        raise ENODEV(name)
    return attributes.get(key, "0") + "\n"
