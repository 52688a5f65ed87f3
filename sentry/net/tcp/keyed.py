"""Numbers that nobody outside may guess: hashes of a secret and of whom they are for."""

from __future__ import annotations

import struct
from _blake2 import blake2b  # as hashlib has it, which would load OpenSSL
from typing import Final, NamedTuple

from sentry.net.inet.address import Endpoint

ENDS: Final = struct.Struct(">16sH16sH")
NUMBER: Final = struct.Struct(">Q")
LEAST_SECRET: Final = 16
MOST_OFFSETS: Final = 256
"""That are kept, since a hash costs as much as a header."""
TICK_SHIFT: Final = 6
"""The clock of sequence numbers ticks each 64 ns, as Linux' does: secure_tcp_seq()."""
MASK: Final = 0xFFFFFFFF


class Flow(NamedTuple):
    """The two ends of a connection, ours first."""

    local: Endpoint
    remote: Endpoint


class Keyed:
    """A secret of at least 16 bytes, and what is made of it."""

    __slots__ = ("_offsets", "_secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) < LEAST_SECRET:
            raise ValueError("too short a secret")
        self._secret = secret[:64]
        self._offsets: dict[bytes, int] = {}
        """Of pairs of hosts that were asked for."""

    def _hash(self, purpose: bytes, what: bytes) -> int:
        made = blake2b(what, digest_size=8, key=self._secret, person=purpose)
        return int.from_bytes(made.digest())

    def _of_flow(self, purpose: bytes, flow: Flow, more: int = 0) -> int:
        ends = ENDS.pack(*flow.local, *flow.remote)
        return self._hash(purpose, ends + NUMBER.pack(more))

    def initial_sequence(self, now_ns: int, flow: Flow) -> int:
        """RFC 6528: a clock, and an offset for each flow."""
        return (self._of_flow(b"isn", flow) + (now_ns >> TICK_SHIFT)) & MASK

    def timestamp_offset(self, flow: Flow) -> int:
        """Of the timestamps of a pair of hosts: RFC 7323, 7.1.

        The same for all of their ports, so that TIME_WAIT can be told from what is new.
        """
        pair = flow.local.ip + flow.remote.ip
        offset = self._offsets.get(pair)
        if offset is None:
            if len(self._offsets) >= MOST_OFFSETS:
                self._offsets.clear()
            offset = self._offsets[pair] = self._hash(b"stamps", pair) & MASK
        return offset

    def cookie(self, flow: Flow, irs: int, minute: int) -> int:
        """32 bits for a SYN that nothing is remembered of: its number, and of which minute."""
        return self._of_flow(b"cookie", flow, minute << 32 | irs) & MASK
