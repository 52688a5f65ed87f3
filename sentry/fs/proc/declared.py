"""All text files of /proc: importing this declares them, which is when somebody looks for one."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from sentry.fs.proc import forks as _forks
from sentry.fs.proc import id_maps as _id_maps
from sentry.fs.proc import kernel_config as _config
from sentry.fs.proc import mounts as _mounts
from sentry.fs.proc import net as _net
from sentry.fs.proc import process_memory as _memory
from sentry.fs.proc import process_misc as _misc
from sentry.fs.proc import process_status as _status
from sentry.fs.proc import system as _system
from sentry.fs.proc.folders import SysFolder, maker_of
from sentry.fs.proc.registry import PROCESS, ROOT, Entry, View
from sentry.fs.pseudo.nodes import Node, TextNode, put

if TYPE_CHECKING:
    from sentry.fs.proc.filesystem import ProcFs

DECLARATIONS: Final = (
    _config, _forks, _id_maps, _memory, _mounts, _net, _misc, _status, _system,
)  # fmt: skip
"""Modules that declare files when they are imported."""
TREES: Final = frozenset(
    [path.split("/", 1)[0].encode() for path in ROOT if "/" in path] + [b"sys", b"fs"]
)
"""Names in the root of what are directories."""
__all__ = ["PROCESS", "ROOT", "TREES", "root_table"]


def root_table(fs: ProcFs) -> dict[bytes, Callable[[], Node]]:
    """What does not belong to a process, by name."""
    tree = _tree(len(ROOT))
    return {name.encode(): maker_of(fs, name.encode(), item) for name, item in tree.items()}


@lru_cache(1)
def _tree(_files: int) -> dict[str, Any]:
    """The same for every file system: dictionaries by name, whose leaves are of `maker_of`. Others
    may be declared later."""
    tree: dict[str, Any] = {"fs": {}, "sys": lambda fs: partial(SysFolder, fs)}
    for path, entry in ROOT.items():
        put(tree, path, partial(text_maker, entry))
    return tree


def text_maker(entry: Entry, fs: ProcFs) -> Callable[[], Node]:
    """A file of the whole system."""
    show, store, kernel = entry.show, entry.store, fs.kernel
    assert show is not None

    def make() -> Node:
        return TextNode(
            fs,
            entry.mode,
            lambda caller: show(View(kernel, caller)),
            (lambda caller, data: store(View(kernel, caller), data)) if store else None,
        )

    return make
