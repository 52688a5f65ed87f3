"""/proc/sys as a tree. With all that declares its files it is imported when somebody looks into it,
or serves a file of /proc: folders.py.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from sentry.fs.proc import sysctl_computed as _computed
from sentry.fs.proc import sysctl_memory as _memory
from sentry.fs.proc import sysctl_net as _net
from sentry.fs.proc.sysctl import SYSCTLS, SysctlNode
from sentry.fs.proc.sysctl_links import links_maker
from sentry.fs.pseudo.nodes import put

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.proc.filesystem import ProcFs
    from sentry.fs.proc.sysctl import Sysctl
    from sentry.fs.pseudo.nodes import Node

__all__ = ["SYSCTLS", "tree"]
DECLARATIONS: Final = (_computed, _memory, _net)
"""Modules that declare values when they are imported, beside `sysctl`."""


@lru_cache(1)
def tree() -> dict[str, Any]:
    """The same for every file system: dictionaries by name, whose leaves are of
    `folders.maker_of`."""
    found: dict[str, Any] = {}
    for path, sysctl in SYSCTLS.items():
        put(found, path, partial(_maker, sysctl))
    for version in ("ipv4", "ipv6"):
        above = found["net"][version]
        above["conf"] = partial(_links, f"net/{version}/conf", above["conf"])
    return found


def _maker(sysctl: Sysctl, fs: ProcFs) -> Callable[[], Node]:
    return lambda: SysctlNode(fs, fs.kernel, sysctl)


def _links(above: str, fixed: dict[str, Any], fs: ProcFs) -> Callable[[], Node]:
    return links_maker(fs, fs.kernel, above, _bound(fs, fixed))


def _bound(fs: ProcFs, tree: dict[str, Any]) -> dict[str, Any]:
    """A tree whose leaves are makers."""
    return {
        name: _bound(fs, item) if isinstance(item, dict) else item(fs)
        for name, item in tree.items()
    }
