"""TUNSETTXFILTER: for which hardware addresses a TAP interface has frames. run_filter()."""

from __future__ import annotations

from typing import Final

from sentry.abi.tun import TUN_FLT_ALLMULTI
from sentry.net.link import ethernet

EXACT: Final = 8
"""FLT_EXACT_COUNT: of any kind; those behind are groups."""


class AddressFilter:
    """Everything passes where there are no addresses, or too many of single hosts.

    Groups behind the first eight are compared as they are, where Linux has a hash of six bits.
    """

    def __init__(self, flags: int, addresses: list[bytes]) -> None:
        rest = addresses[EXACT:]
        self.exact = 0 if any(not ethernet.is_group(each) for each in rest) else len(
            addresses[:EXACT]
        )
        self._wanted = frozenset(addresses)
        self._takes_groups = bool(flags & TUN_FLT_ALLMULTI)

    def passes(self, target: bytes) -> bool:
        """Whether a frame to this address is queued."""
        if not self.exact or target in self._wanted:
            return True
        return self._takes_groups and ethernet.is_group(target)
