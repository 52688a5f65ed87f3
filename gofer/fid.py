"""Fids: a client's handles on nodes."""

from __future__ import annotations

import errno
import os
from itertools import takewhile

from gofer.files import OpenFile
from gofer.native import error
from gofer.node import Node, NodeTable
from gofer.records import Spares

MAX_XATTR_BYTES = 1 << 20
"""Values and lists that the fids of one session hold."""


class XattrState:
    """What Txattrwalk read, or what is being collected for the clunk after Txattrcreate."""

    __slots__ = ("data", "flags", "name", "size")

    def __init__(self, name: bytes, data: bytes, size: int = -1, flags: int = 0) -> None:
        self.name = name
        self.data = data
        self.size = size
        """Announced size of a value being written; -1 for one being read."""
        self.flags = flags

    @property
    def room(self) -> int:
        """Bytes that it takes, or will."""
        return len(self.name) + max(len(self.data), self.size)


class Fid:
    """A reference to a node; open or not."""

    __slots__ = ("file", "node", "socket", "uid", "xattr")

    def __init__(self, node: Node, uid: int) -> None:
        self.node = node
        self.uid = uid
        """The user of the attach; owner of what the standard messages create."""
        self.file: OpenFile | None = None
        self.xattr: XattrState | None = None
        self.socket = -1
        """One that is bound to its name."""


class FidBudget:
    """How many fids all sessions of a server may have together."""

    __slots__ = ("left",)

    def __init__(self, limit: int) -> None:
        self.left = limit


class FidTable:
    """The fids of one session."""

    __slots__ = ("_budget", "_fids", "_table", "_xattr_bytes", "spares")

    def __init__(self, table: NodeTable, budget: FidBudget) -> None:
        self._table = table
        self._budget = budget
        self._fids: dict[int, Fid] = {}
        self._xattr_bytes = 0
        self.spares: Spares | None = None
        """Fids that are not known here before they are asked for."""

    def __len__(self) -> int:
        return len(self._fids)

    def __contains__(self, number: int) -> bool:
        return number in self._fids or (self.spares is not None and self.spares.has(number))

    def get(self, number: int) -> Fid:
        """Raises EBADF."""
        fid = self._fids.get(number)
        if fid is not None:
            return fid
        spares = self.spares
        if spares is None or not spares.has(number):
            raise error(errno.EBADF)
        fd = spares.take(number)
        self.spares_gone()
        return self.bind(number, spares.node(fd), spares.uid)

    def bind_spares(self, numbers: list[int], root: Fid, at: int) -> list[tuple[bytes, int]]:
        """New files without a name, in the root whose descriptor is `at`: their attributes, and
        descriptors to give away. Of the first of the numbers: the others have to be bound
        otherwise."""
        spares = self.spares
        if spares is None:
            return []
        room = min(self._budget.left, self._table.nameless_left)
        free = list(takewhile(lambda number: number not in self._fids, numbers[: max(room, 0)]))
        made = spares.make(root.node, at, free)
        if made:
            spares.uid = root.uid
        self._budget.left -= len(made)
        return made

    def spares_gone(self) -> None:
        """Some may have ended."""
        if self.spares is not None:
            self._budget.left += self.spares.gone()

    def bind(self, number: int, node: Node, uid: int) -> Fid:
        """A new fid. Raises EBADF if the number is taken, EMFILE at the ceiling."""
        self.check_free(number)
        self._budget.left -= 1
        node.refs += 1
        fid = self._fids[number] = Fid(node, uid)
        return fid

    def check_free(self, number: int) -> None:
        """Raises what `bind` would raise, before anything else is done."""
        if number in self:
            raise error(errno.EBADF)
        if self._budget.left <= 0:
            raise error(errno.EMFILE)

    def hold(self, fid: Fid, state: XattrState) -> None:
        """The fid holds a value from now on. Raises ENOMEM at the session's ceiling."""
        if self._xattr_bytes + state.room > MAX_XATTR_BYTES:
            raise error(errno.ENOMEM)
        self._xattr_bytes += state.room
        fid.xattr = state

    def rebind(self, fid: Fid, node: Node) -> None:
        """The fid stands for another node from now on."""
        node.refs += 1
        self._table.hot.changed(fid.node)
        self._table.release(fid.node)
        fid.node = node

    def remove(self, number: int) -> Fid:
        """Forget a fid; its file is closed."""
        fid = self.get(number)
        del self._fids[number]
        self._budget.left += 1
        if fid.xattr is not None:
            self._xattr_bytes -= fid.xattr.room
        if fid.file is not None:
            fid.file.close()
        if fid.socket >= 0:
            os.close(fid.socket)
        self._table.hot.changed(fid.node)
        self._table.release(fid.node)
        return fid

    def clear(self) -> None:
        for number in list(self._fids):
            self.remove(number)
        if self.spares is not None:
            self.spares.close()
            self.spares_gone()

    def copy_into(self, other: FidTable) -> None:
        """Give `other` the same fids (not their open files' positions, which 9P has not)."""
        if self.spares is not None:
            for number in self.spares.numbers():
                self.get(number)
        for number, fid in self._fids.items():
            other.bind(number, fid.node, fid.uid)
