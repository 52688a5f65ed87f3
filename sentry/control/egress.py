"""What may leave a sandbox, changed and told: `runsc egress`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import asdict

from sentry.control.answers import Denied, EgressState
from sentry.control.descriptors import close_all, keeps_messages_apart
from sentry.errors import EINVAL, EOPNOTSUPP
from sentry.watch.reading import address_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.config import EgressConfig
    from sentry.kernel.kernel import Kernel
    from sentry.net.egress.denials import Denial
    from sentry.net.host.dialer import Dialer
    from sentry.net.inet.egress import Egress


def of(kernel: Kernel) -> Egress:
    """The sandbox's. Raises: EOPNOTSUPP."""
    found = kernel.first.net.stack.egress
    if found is None:
        raise EOPNOTSUPP("it was started without --egress: nobody judges what leaves")
    return cast("Egress", found)


def change(egress: Egress, wanted: EgressConfig, dialer: Dialer | None) -> None:
    """From now on. Raises: EINVAL; the dialer has ended then."""
    from sentry.net.egress.rules import PolicyError  # noqa: PLC0415  it is there if that is

    try:
        egress.change(wanted.policy, wanted.host_addresses, dialer)
    except PolicyError as error:
        if dialer is not None:
            dialer.close()
        raise EINVAL(str(error)) from None


def dialer_of(fds: list[int], loop: Any) -> Dialer | None:
    """The one that a command line has made; None: it has made none. The descriptors belong to it.

    Raises: EINVAL.
    """
    from sentry.net.host.dialer import Dialer  # noqa: PLC0415  few have one

    if not fds:
        return None
    if len(fds) == 1 and keeps_messages_apart(fds[0]):
        return Dialer(fds[0], loop)
    close_all(fds)
    raise EINVAL("one way to a dialer")


def state(egress: Egress, after: int) -> EgressState:
    """With denials of higher numbers than that."""
    flows, denials = egress.flows, egress.flows.denials
    counts = asdict(flows.counters) | {"flows": len(flows), "untold": denials.untold}
    for way, size in flows.total.bytes.items():
        counts[f"bytes_{way.name.lower()}"] = size
    asked = asdict(egress.resolver.forwarder.counters)
    counts |= {f"names_{key}": count for key, count in asked.items()}
    since = denials.since(after) if after >= 0 else []
    offset_ns = time.time_ns() - time.monotonic_ns()
    told = [_told(each, offset_ns) for each in since]
    return EgressState(egress.text, counts, told, flows.used())


def _told(denial: Denial, offset_ns: int) -> Denied:
    target, program = denial.target, denial.program
    return Denied(
        denial.number, denial.at_ns + offset_ns, denial.reason, denial.rule, denial.names,
        address_text(target.ip), target.protocol, target.port,
        *((program.pid, program.uid, program.path) if program is not None else ()),
    )  # fmt: skip


class DenialWait:
    """Calls `done` once when more than so many were written down, unless it is given up before."""

    def __init__(self, loop: Any, egress: Egress, after: int, done: Callable[[], None]) -> None:
        self._loop = loop
        self._egress = egress
        self._after = after
        self._done = done
        self._entry = egress.denied.add(self._look)

    def look(self) -> None:
        """There may be some already."""
        self._look(0)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        self._egress.denied.remove(self._entry)

    def _look(self, _events: int) -> None:
        if self._egress.flows.denials.number > self._after:
            self.abandon()
            self._loop.call_soon(self._done)  # it is in the middle of that
