"""The seccomp filters of our own processes: allow-lists as data, with a reason for every rule.

`sentry_program` and `gofer_program` give what the kernel takes; `install` puts every thread of this
process under it. What no rule allows ends the process (SECCOMP_RET_KILL_PROCESS).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from runsc import host
from runsc.filters.program import build
from sentry.abi import seccomp
from sentry.bpf.isa import pack

if TYPE_CHECKING:
    from gofer import confine


class Switches(msgspec.Struct, frozen=True):
    """For development; the defaults are what is safe."""

    no_filter: bool = False
    """Run without the seccomp filter."""
    trap: bool = False
    """On a refused call write its number to the log and exit, instead of being killed."""


def _default(trap: bool) -> int:
    return seccomp.SECCOMP_RET_TRAP if trap else seccomp.SECCOMP_RET_KILL_PROCESS


def sentry_program(
    platform: str, network: str, trap: bool = False, *, services: bool = False
) -> bytes:
    """The Sentry's program, as the kernel takes it. `services`: config.json mounts sockets."""
    return _sentry_program(platform, network, trap, services)


@cache
def _sentry_program(platform: str, network: str, trap: bool, services: bool) -> bytes:
    from runsc.filters import sentry as sentry_rules  # noqa: PLC0415  each process has its own

    more = (sentry_rules.SHUTDOWN,) if services else ()
    return pack(build(sentry_rules.rules(platform, network, more), _default(trap)))


def forkable_program(
    trap: bool = False, network: str = "none", *, is_sealed: bool = False
) -> bytes:
    """That of a Sentry which may be forked; passt's network needs no more than none does.
    `is_sealed`: of its forks, once they are there."""
    return _forkable_program(trap, network, is_sealed)


@cache
def _forkable_program(trap: bool, network: str, is_sealed: bool) -> bytes:
    from runsc.filters import forkable  # noqa: PLC0415  few are

    return pack(build(forkable.rules(network, is_sealed=is_sealed), _default(trap)))


def gofer_program(trap: bool = False, more: Sequence[confine.Rule] = ()) -> bytes:
    """The Gofer's; `more` is what this one may do besides."""
    return _gofer_program(trap, tuple(more))


@cache
def _gofer_program(trap: bool, more: tuple[confine.Rule, ...]) -> bytes:
    from runsc.filters import gofer as gofer_rules  # noqa: PLC0415

    return pack(build(gofer_rules.rules(more), _default(trap)))


def network_program(
    trap: bool = False, *, uplinks: bool = False, listens: bool = False
) -> bytes:
    """The network process's."""
    return _network_program(trap, uplinks, listens)


@cache
def _network_program(trap: bool, uplinks: bool, listens: bool) -> bytes:
    from runsc.filters import network as network_rules  # noqa: PLC0415

    return pack(build(network_rules.rules(uplinks, listens), _default(trap)))


def dialer_program(trap: bool = False) -> bytes:
    """A dialer's."""
    from runsc.filters import dialer as dialer_rules  # noqa: PLC0415

    return pack(build(dialer_rules.rules(), _default(trap)))


def forget_rules() -> None:
    """Of which programs have been made: they and what they are good for are 70 KiB."""
    here = sys.modules[__name__]
    for name in ("common", "forkable", "gofer", "sentry"):
        if sys.modules.pop(f"{__name__}.{name}", None) is not None:
            delattr(here, name)


def install(program: bytes, switches: Switches, log_fd: int) -> None:
    """All threads, for ever, unless the switches say otherwise."""
    if switches.no_filter:
        return
    if switches.trap:
        host.report_refused_calls(log_fd)
    host.install_filter(program, seccomp.SECCOMP_FILTER_FLAG_TSYNC)
