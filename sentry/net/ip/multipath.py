"""Which of several next hops a packet takes: the same one as all of its flow.

fib_select_multipath(), fib_multipath_hash().
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from sentry.net.routes import Hop
    from sentry.net.rules import RouteKey

BITS: Final = 32
LAYER_4: Final = 1
"""fib_multipath_hash_policy: ports count, too."""


def chosen(hops: Sequence[Hop], seed: bytes, target: bytes, key: RouteKey, policy: int) -> Hop:
    """By its weight. `seed` is by chance. Preconditions: there is one."""
    flow = [seed, key.source, target]
    if policy == LAYER_4:
        ports = key.source_port << 16 | key.port
        flow.append(key.protocol.to_bytes(1) + ports.to_bytes(4))
    place = crc32(b"".join(flow)) * sum(hop.weight for hop in hops) >> BITS
    for hop in hops:
        place -= hop.weight
        if place < 0:
            return hop
    return hops[-1]
