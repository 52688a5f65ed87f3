"""What the processes of a sandbox run: the Sentry and the Gofer, or what a test has instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from runsc import filters
from runsc.launch import ahead, boot, isolation
from runsc.launch.kept import KeptCode
from sentry.config import SandboxConfig
from sentry.suppress import suppress

if TYPE_CHECKING:
    from runsc.launch.boot_gofer import Serve
    from runsc.launch.gofer_start import GoferStart

    StartGofer = Callable[[GoferStart, filters.Switches, boot.Terms], int]
    """Makes the Gofer's process; gives its pid."""

Body = Callable[[SandboxConfig, filters.Switches, boot.Terms], int]
"""What the Sentry's process does; gives its exit code."""
Start = Callable[[SandboxConfig, filters.Switches, boot.Terms], int]
"""Makes that process; gives its pid."""

NEVER_LATE = frozenset(
    {
        "sentry.net.egress",
        "sentry.net.inet.broker_stream",
        "sentry.net.inet.brokers",
        "sentry.net.inet.egress",
        "sentry.net.inet.resolver",
        "sentry.net.inet.resolver_behind",
        "sentry.net.names.cache",
        "sentry.net.names.chain",
        "sentry.net.names.forwarder",
        "sentry.net.names.given",
        "sentry.net.names.messages",
        "sentry.net.names.pending",
        "sentry.net.names.reader",
        "sentry.net.names.writer",
        "sentry.platform.unicorn",
        "sentry.platform.unicorn_cpuid",
        "sentry.state.listing",
        "sentry.syscalls.compat",
        "sentry.watch.listing",
        "sentry.syscalls.table",
    }
)
"""Modules, and packages, that a sandbox imports before it is locked in or not at all."""


class Programs(msgspec.Struct, frozen=True):
    """The two."""

    start_sentry: Start
    start_gofer: StartGofer


def gofer() -> Serve:
    """The Gofer."""
    from gofer.main import run  # noqa: PLC0415  only there

    return run


def sentry(platform: str) -> Body:
    """The Sentry, with all that it needs from files read. Raises: RuntimeError."""
    from sentry.boot.sandbox import preload, prepare  # noqa: PLC0415  only there

    preload(platform)
    kept = late()

    def body(config: SandboxConfig, switches: filters.Switches, terms: boot.Terms) -> int:
        if config.egress is not None:
            with suppress(ImportError):  # dnspython is an extra; it cannot be kept
                from sentry.net.inet import egress, resolver  # noqa: F401, PLC0415
        return boot.sentry_main(config, prepare, switches, terms, kept)

    return body


def late() -> KeptCode:
    """What it may import later: its own modules, and those of the library that most programs do not
    need."""
    kept = KeptCode.of("sentry", NEVER_LATE | ahead.compiled())
    library = os.path.dirname(os.__file__)
    kept.add("re", f"{library}/re")
    kept.add_module("contextlib", library)
    return kept


def forked(body: Body) -> Start:
    """Make the process now, of this one."""

    def start(config: SandboxConfig, switches: filters.Switches, terms: boot.Terms) -> int:
        isolation.freeze_heap()
        return isolation.spawn(lambda: body(config, switches, terms))

    return start


def forked_gofer(serve: Serve) -> StartGofer:
    """The same of a Gofer that serves so. Preconditions: the heap is frozen."""
    from runsc.launch import boot_gofer  # noqa: PLC0415  most are there already: `early`

    def start(gofer: GoferStart, switches: filters.Switches, terms: boot.Terms) -> int:
        return isolation.spawn(lambda: boot_gofer.gofer_main(gofer, serve, switches, terms))

    return start
