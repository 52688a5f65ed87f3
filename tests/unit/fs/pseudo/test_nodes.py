"""Directories whose children are made when asked for."""

from __future__ import annotations

from sentry.abi.stat import S_IFREG
from sentry.fs.pseudo.nodes import Node, TableDirectory
from sentry.fs.pseudo.table import TableFs


class Generations(TableDirectory):
    """Its children become stale when told."""

    __slots__ = ("old",)

    def stale(self, node: Node) -> bool:
        return node is self.old


def directory() -> Generations:
    fs = TableFs(1, lambda: 0)
    made = Generations(fs, {b"file": lambda: Node(fs, S_IFREG | 0o444)})
    made.old = None
    return made


def test_child_is_the_same_while_somebody_holds_it() -> None:
    above = directory()
    held = above.lookup_cached(b"file")
    assert above.lookup_cached(b"file") is held


def test_child_that_nobody_holds_is_made_anew() -> None:
    above = directory()
    first = above.lookup_cached(b"file")
    assert isinstance(first, Node)
    number = first.ino
    del first
    assert not above._made
    again = above.lookup_cached(b"file")
    assert isinstance(again, Node)
    assert again.ino == number


def test_stale_child_leaves_its_heir_alone() -> None:
    above = directory()
    first = above.lookup_cached(b"file")
    above.old = first
    second = above.lookup_cached(b"file")
    assert second is not first
    above.old = None
    del first
    assert above.lookup_cached(b"file") is second
