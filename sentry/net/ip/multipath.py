"""Which of several next hops a packet takes: the same one as all of its flow.

fib_select_multipath(), fib_multipath_hash().
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from sentry.net.ip.ground import Ground
    from sentry.net.routes import Hop, Route
    from sentry.net.rules import RouteKey

BITS: Final = 32
LAYER_4: Final = 1
"""fib_multipath_hash_policy: ports count, too."""


def next_hop_of(
    layer: Ground, route: Route, target: bytes, index: int, key: RouteKey
) -> tuple[int, bytes]:
    """Interface and gateway: of links that are there, best of those that have the packet's source.

    `index`: by this one, if it is not 0. Preconditions: the route has several.
    """
    usable = [
        hop for hop in route.hops
        if index in (0, hop.interface) and layer.interface(hop.interface) is not None
    ]  # fmt: skip
    if not usable:
        return route.index, route.gateway
    own = layer.fib.local(key.source) if key.source else None
    if own is not None:
        usable = [hop for hop in usable if hop.interface == own.index] or usable
    name = "ipv4" if len(target) == 4 else "ipv6"
    policy = int(layer.sysctls.get(f"net/{name}/fib_multipath_hash_policy", "0"))
    found = chosen(usable, layer.seed, target, key, policy)
    return found.interface, found.gateway


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
