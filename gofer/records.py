"""The records of a journal, read and mostly carried out in C (drain.c), and fids that only C knows.

What is asked for most often is done there: Tnamex of a spare, Tsetattrx, Tunlinkat of a file and
Tclunk of a spare, in a directory where Python has done such a thing (`Hot`). All else, and what is
refused there, comes to Python, in the records' order.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from gofer._native import ffi, lib
from gofer.native import check, error, stat_block
from gofer.p9.codec import Message, decode
from gofer.p9.constants import MAX_SPARES
from gofer.p9.extensions import Tnamex
from gofer.p9.fields import ATTR_SIZE
from gofer.p9.messages import Tclunk

if TYPE_CHECKING:
    from gofer.hot import Hot
    from gofer.node import Node, NodeTable

_blocks: Final = ffi.new("uint8_t[]", MAX_SPARES * ATTR_SIZE)
_fds: Final = ffi.new("int[]", MAX_SPARES)
_fids: Final = ffi.new("uint32_t[]", lib.DRAIN_SPARES)


class Records:
    """What a client leaves in a ring. Each byte that counts is looked at in one copy of it."""

    def __init__(self, ring: int, capacity: int) -> None:
        """`ring`: a file in memory of so many bytes."""
        self.drain = lib.drain_begin(ring, capacity)
        if not self.drain:
            raise error(errno.ENOMEM)

    def __del__(self) -> None:
        lib.drain_end(self.drain)

    @property
    def position(self) -> int:
        """Where the next record begins."""
        return self.drain.position

    def __len__(self) -> int:
        """Of those that were read last."""
        return self.drain.count

    def read(self) -> bool:
        """Copy what is there, one lap at most. False: after it comes something that is no frame."""
        rc = lib.drain_read(self.drain)
        return rc != -errno.EPROTO

    def sort(self) -> bool:
        """Leave out what was made and removed again, and what was taken back by its fid (Trevertx),
        which is used again. False: the record after the last of them is nothing for a journal."""
        rc = lib.drain_sort(self.drain)
        if rc != -errno.EPROTO:
            check(rc)
        return rc != -errno.EPROTO

    def frame(self, at: int) -> bytes:
        """What record number `at` holds."""
        record = lib.drain_record(self.drain, at)
        return ffi.buffer(self.drain.bytes + record.at, record.size)[:]

    def __getitem__(self, at: int) -> tuple[int, Message]:
        """The position of number `at`, and what is to be done of it. Preconditions: it was sorted,
        and is not left out."""
        record = lib.drain_record(self.drain, at)
        frame = self.frame(at)
        request = decode(frame, 0, len(frame))[1]
        if record.what == lib.DRAIN_GIVE_BACK:
            assert isinstance(request, Tnamex)
            request = Tclunk(request.fid)
        return record.position, request

    def run(self, hot: Hot, sock: int, at: int, most: int) -> int:
        """Carry out what can be, from number `at` on. Where it stopped: Python's, or the end."""
        return lib.drain_run(self.drain, hot.known, sock, at, most)


class Spares:
    """Files without a name of which no node is made, unless something but a record names the fid.

    They count as fids and nodes all the same.
    """

    def __init__(self, records: Records, table: NodeTable) -> None:
        self._records = records
        """Held: it has the memory of these, too."""
        self._drain = records.drain
        self._table = table
        self.uid = 0
        """Of the fids."""
        self._directory: Node | None = None
        self._counted = 0

    def make(self, directory: Node, at: int, numbers: list[int]) -> list[tuple[bytes, int]]:
        """New ones, in the root whose descriptor is `at`: attributes, and a descriptor to give
        away. As many as there are places for, all in one root, and as the host makes. At most
        MAX_SPARES numbers."""
        if directory.parent is not None or self._directory not in (None, directory):
            return []
        self._directory, self._drain.place = directory, directory.attachment.fd
        made = lib.drain_spares(self._drain, at, numbers, len(numbers), _blocks, _fds)
        self._table.count_nameless(made)
        self._counted += made
        found = ffi.buffer(_blocks)[: made * ATTR_SIZE]
        return [
            (found[at * ATTR_SIZE : at * ATTR_SIZE + ATTR_SIZE], _fds[at]) for at in range(made)
        ]

    def has(self, number: int) -> bool:
        """Whether the fid is one of these."""
        return bool(lib.drain_has(self._drain, number))

    def numbers(self) -> list[int]:
        """Of all of them."""
        count = lib.drain_fids(self._drain, _fids)
        return list(_fids[0:count])

    def take(self, number: int) -> int:
        """The descriptor of one, which is none of these any more: for `node`."""
        return lib.drain_take(self._drain, number)

    def node(self, fd: int) -> Node:
        """A node in place of it. Raises: OSError."""
        assert self._directory is not None
        try:
            block = stat_block(fd, b"")
            if isinstance(block, int):
                raise error(-block)
            return self._table.nameless(self._directory, block, fd)
        except OSError:
            os.close(fd)
            raise

    def gone(self) -> int:
        """How many are no more since the last time."""
        gone, self._counted = self._counted - self._drain.held, self._drain.held
        self._table.count_nameless(-gone)
        return gone

    def close(self) -> None:
        """All of them end."""
        for number in self.numbers():
            lib.drain_drop(self._drain, number)
