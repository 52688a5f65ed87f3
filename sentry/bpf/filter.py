"""A program that a program inside has installed: checked and run in C (native/filter.c).

It is hostile. What Linux accepts is accepted; a run takes less than 0.1 ms, whatever
the program and whatever the packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from sentry.bpf.isa import INSTRUCTION_SIZE
from sentry.errors import EINVAL
from sentry.platform._native import ffi, lib

_CALL: Final = struct.Struct("<iIQ6Q")
"""struct seccomp_data."""
_OVERHEAD: Final = 512
"""Bytes of the objects around the instructions, with those of the allocator."""
LOOKED: Final = 1 << lib.FILTER_LOOKED_SHIFT
PLACE_SHIFT: Final = lib.FILTER_PLACE_SHIFT


class _Program:
    """The instructions, of either kind."""

    __slots__ = ("_made", "converted", "count")
    for_calls = False

    def __init__(self, code: bytes) -> None:
        """`code` is an array of struct sock_filter. Raises: EINVAL."""
        self.count = len(code) // INSTRUCTION_SIZE
        # SAFETY: `code` has `count` instructions; it is copied.
        self._made = made = lib.filter_make(code, self.count, self.for_calls)
        if made == ffi.NULL:
            raise EINVAL("no such filter")
        self.converted = lib.filter_converted(made)
        """Instructions that Linux makes of it."""

    def __del__(self) -> None:
        # SAFETY: nobody else has it: the filter that runs before it keeps this object.
        lib.filter_free(self._made)

    @property
    def code(self) -> bytes:
        """What it was made of."""
        # SAFETY: so many instructions are in it; the bytes are a copy.
        code = ffi.buffer(lib.filter_code(self._made), self.count * INSTRUCTION_SIZE)
        return bytes(code)

    @property
    def size(self) -> int:
        """Bytes of memory that it holds; however many use it, it is there once."""
        return self.count * INSTRUCTION_SIZE + _OVERHEAD


class Packet:
    """A packet as filters see it: struct sk_buff."""

    __slots__ = ("_bytes", "_c")

    def __init__(self, data: bytes, start: int = 0, network: int = 0, link: int = -1) -> None:
        """What lies before `start` only loads with negative offsets reach; without a link header
        `link` is -1."""
        self._bytes = data
        self._c = ffi.new("struct packet *")
        self._c.size, self._c.start, self._c.network, self._c.link = len(data), start, network, link

    def of(self, protocol: int, kind: int, device: int, hardware: int) -> Packet:
        """The same, that came over a device: what SKF_AD_* tell."""
        c = self._c
        c.protocol, c.kind, c.device, c.hardware = protocol, kind, device, hardware
        return self

    def tagged(self, kind: int, control: int) -> None:
        """It had a VLAN tag, with this TPID and TCI: SKF_AD_VLAN_*."""
        self._c.has_tag, self._c.tag_kind, self._c.tag = 1, kind, control


class PacketFilter(_Program):
    """SO_ATTACH_FILTER and its kin."""

    __slots__ = ()

    def run(self, packet: Packet) -> int:
        """The result: how many bytes of it pass, mostly."""
        # SAFETY: `packet` has the bytes and their number.
        return lib.filter_packet(self._made, packet._bytes, packet._c)


class CallFilter(_Program):
    """A filter of seccomp(2), the newest of those that a task has: `older` are shared."""

    __slots__ = ("depth", "older", "path")
    for_calls = True

    def __init__(self, code: bytes) -> None:
        super().__init__(code)
        self.older: CallFilter | None = None
        self.depth = 1
        self.path = self.converted
        """Instructions of all of them, and what each older one costs beside its own."""

    def put_before(self, older: CallFilter, cost: int) -> None:
        """Run before `older`. Preconditions: no task has it yet."""
        # SAFETY: `older` is kept here.
        self.older = older
        lib.filter_link(self._made, older._made)
        self.depth = older.depth + 1
        self.path = self.converted + older.path + cost

    def __iter__(self) -> Iterator[CallFilter]:
        """The newest first."""
        at: CallFilter | None = self
        while at is not None:
            yield at
            at = at.older

    def run(self, number: int, arch: int, ip: int, arguments: tuple[int, ...]) -> int:
        """The strictest action of all, LOOKED if it is not so for every call of this number, and
        from PLACE_SHIFT on which one decided: how many are newer."""
        # SAFETY: a whole struct seccomp_data; the older ones live as long as this one.
        return lib.filter_calls(self._made, _CALL.pack(number, arch, ip, *arguments))
