"""Between a stack and its rules: what those see of `hooks.Netfilter` who do not ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sentry.net.netfilter.conntrack import Conntrack


class NetfilterSide(Protocol):
    """sentry.net.netfilter.hooks.Netfilter."""

    conntrack: Conntrack

    @property
    def ip_tables(self) -> Mapping[tuple[bool, str], object]: ...

    def plug(self) -> None: ...
    def end(self) -> None: ...
