"""runsc clock: the time that programs of a sandbox see."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import click

from runsc import spans
from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.options import Globals
from sentry.control.answers import ClockState
from sentry.control.orders import ClockOrder
from sentry.control.protocol import Request

US = 1000


@click.group(
    help="The time that programs see in the sandbox of a container: it is the host's, or goes by as"
    " is said here. Network and files of the host keep the host's time. See docs/time.md."
    "\n\n\b\nExamples:\n"
    "  runsc clock jump web 30 days         what is due by then is due now\n"
    "  runsc clock freeze web"
)
def command() -> None:
    """What was wrong is a RuntimeFailure."""


@command.command(help="Print what the clocks of CONTAINER-ID show, and how fast they go.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def show(flags: Globals, /, container_id: str) -> None:
    """Three lines."""
    _order(flags, container_id, ClockOrder())


@command.command(help="Its time stands still.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def freeze(flags: Globals, /, container_id: str) -> None:
    """A speed of 0."""
    _order(flags, container_id, ClockOrder("speed", speed=0))


@command.command(help="Its time goes by SPEED times as fast as the host's; 1 after `freeze`.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("speed", type=click.FloatRange(0, 10_000), metavar="SPEED")
@click.pass_obj
def speed(flags: Globals, /, container_id: str, speed: float) -> None:
    """Up to 10,000."""
    _order(flags, container_id, ClockOrder("speed", speed=speed))


@command.command(help="So much time has gone by at once: SPAN is such as 90s, 1h30m, 30 days.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("span", nargs=-1, required=True)
@click.pass_obj
def jump(flags: Globals, /, container_id: str, span: tuple[str, ...]) -> None:
    """All that is due by then is due."""
    _order(flags, container_id, ClockOrder("jump", ns=_ns(span)))


@command.command("set", help="Its wall clock shows DATE (ISO 8601, UTC); no other clock changes.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("date", nargs=-1, required=True)
@click.pass_obj
def set_(flags: Globals, /, container_id: str, date: tuple[str, ...]) -> None:
    """As clock_settime(2)."""
    try:
        at_ns = spans.moment_ns(" ".join(date))
    except ValueError as error:
        raise RuntimeFailure(str(error)) from None
    _order(flags, container_id, ClockOrder("set", ns=at_ns))


@command.command(help="So much time goes by, as fast as its programs are done with it: from one"
    " timer to the next, each time when all of them wait. Ctrl-C: it stays there.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("span", nargs=-1, required=True)
@click.pass_obj
def advance(flags: Globals, /, container_id: str, span: tuple[str, ...]) -> None:
    """To its end, however long that takes."""
    _ask(flags, container_id, Request("advance", time_ns=_ns(span)), math.inf)


def _ns(words: tuple[str, ...]) -> int:
    try:
        return spans.span_ns(" ".join(words))
    except ValueError as error:
        raise RuntimeFailure(str(error)) from None


def _order(flags: Globals, container_id: str, order: ClockOrder) -> None:
    _ask(flags, container_id, Request("clock", clock=order))


def _ask(
    flags: Globals, container_id: str, request: Request, patience_s: float = lifecycle.ANSWER_S
) -> None:
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    reply = lifecycle.ask(store, state, request, patience_s)
    if reply.error or reply.clock is None:
        raise RuntimeFailure(reply.error or "the sandbox does not tell the time")
    _show(reply.clock)


def _show(found: ClockState) -> None:
    shown = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=min(max(found.wall_ns, 0), spans.MAX_NS) // US
    )
    click.echo(f"wall clock: {shown:%Y-%m-%d %H:%M:%S.%f} UTC")
    click.echo(f"monotonic:  {found.monotonic_ns / spans.NS:.6f}")
    click.echo(f"speed:      {found.speed:g}" + ("" if found.is_shaped else " (the host's time)"))
