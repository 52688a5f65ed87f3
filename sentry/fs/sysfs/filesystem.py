"""`SysFs`: one mounted /sys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sentry.abi.stat import SYSFS_MAGIC
from sentry.fs.pseudo.cpu import cpu_of
from sentry.fs.pseudo.nodes import Node, TextNode, directory_maker, put
from sentry.fs.pseudo.table import TableFs
from sentry.fs.sysfs.cpus import cpu_files
from sentry.fs.sysfs.memory import huge_page_wishes, memory_files, no_huge_pages, node_meminfo
from sentry.fs.sysfs.network import network_directories
from sentry.vfs.interface import Inode

EMPTY: Final = (
    "block", "bus/cpu", "bus/pci/devices", "class/block", "class/hwmon", "class/mem", "class/misc",
    "class/power_supply", "class/thermal", "class/tty", "dev/block", "dev/char", "firmware",
    "fs/cgroup", "fs/fuse/connections", "hypervisor", "kernel/security",
    "module", "power",
)  # fmt: skip
"""Directories without anything in them: some are there to be mounted on."""


class SysTextNode(TextNode):
    """A file of an attribute: its size is a page, whatever it shows."""

    __slots__ = ()
    has_end = True

    def size(self) -> int:
        """st_size."""
        return 4096


class SysFs(TableFs):
    """The tree is made at mount; its texts do not change, but for those that are functions.

    The interfaces are those of the network namespace of who mounts it.
    """

    name = "sysfs"
    magic = SYSFS_MAGIC
    keeps_names = False

    def __init__(self, caller: Any) -> None:
        kernel = caller.kernel
        super().__init__(kernel.vfs.new_dev(), kernel.vfs.now_ns)
        self.net = caller.ns.net
        tree: dict[str, Any] = {}
        for path in EMPTY:
            folder = tree
            for name in path.split("/"):
                folder = folder.setdefault(name, {})
        cpu = cpu_of(kernel)
        texts = cpu_files(cpu) | memory_files(cpu.cpus)
        for path, text in texts.items():
            put(tree, path, self._constant(f"{text}\n"))
        put(tree, "devices/system/node/node0/meminfo", self._text(lambda _: node_meminfo(kernel)))
        for path in huge_page_wishes():
            put(tree, path, lambda: TextNode(self, 0o644, lambda _: "0\n", no_huge_pages))
        for path, directory in network_directories(self, caller.ns.net, self._text).items():
            put(tree, path, directory)
        self._root = directory_maker(self, tree)()
        self._root.ino = self.root_ino

    @property
    def root(self) -> Inode:
        """The top."""
        return self._root

    def _text(self, show: Callable[[Any], str]) -> Callable[[], Node]:
        return lambda: SysTextNode(self, 0o444, show)

    def _constant(self, text: str) -> Callable[[], Node]:
        return self._text(lambda _: text)


def mount_sysfs(caller: Any, source: bytes, flags: int, data: bytes) -> SysFs:
    """mount(2) of type sysfs: vfs.types[b"sysfs"]."""
    fs = SysFs(caller)
    fs.source = source.decode(errors="replace") or fs.name
    return fs
