"""Which of many queues a frame goes to: all of a flow to the same one. tun_select_queue()."""

from __future__ import annotations

from typing import Final

from sentry.net.link import vnet

ADDRESSES: Final = {4: (12, 24), 6: (8, 44)}
"""Where addresses and ports are, in a packet without options."""


def queue_of(frame: bytes, link_size: int, queues: int) -> int:
    """Its number, of so many."""
    at = vnet.SIZE + link_size
    version = frame[at] >> 4 if len(frame) > at else 0
    first, end = ADDRESSES.get(version, (0, 0))
    return hash(frame[at + first : at + end]) % queues
