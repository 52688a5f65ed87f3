"""runsc report: a run as one page."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from math import inf
from typing import TYPE_CHECKING

import click

from runsc.containers.durations import seconds
from runsc.errors import NoContainer, RuntimeFailure
from runsc.options import Globals

if TYPE_CHECKING:
    from runsc.containers.container import Store
    from runsc.containers.state import State
    from runsc.report.summary import Summary

PLOTS = ("timeline", "activity", "cost", "calls", "memory")


@click.command(
    help="Write a page of HTML about what happens in the sandbox of the container CONTAINER-ID"
    " from now on, until Ctrl-C, its end, or the end of a time; or about a recording that"
    " `runsc trace watch --record` has made. The page needs no network and no other file.\n\n"
    "What has a / in it, or names no container, is a recording."
    "\n\n\b\nExample:\n"
    "  runsc report --time 10s -o web.html web"
)
@click.option("--output", "-o", metavar="FILE", required=True, help="The page; -: to standard"
    " output.")  # fmt: skip
@click.option("--time", "duration", metavar="TIME", help="Look for so long (such as 30s).")
@click.option("--point", "-p", "points", metavar="NAME", multiple=True, help="Listen to this point"
    " rather than to a choice of them. May be repeated.")  # fmt: skip
@click.option("--plot", type=click.Choice(PLOTS), help="Only this picture, as SVG.")
@click.argument("what", metavar="CONTAINER-ID|RECORDING")
@click.pass_obj
def command(
    flags: Globals,
    /,
    output: str,
    duration: str | None,
    points: tuple[str, ...],
    plot: str | None,
    what: str,
) -> None:
    """Read it to its end, then write."""
    from runsc.report.summary import Summary  # noqa: PLC0415  for --help it takes too long
    from sentry.syscalls.registry import NUMBERS  # noqa: PLC0415

    summary = Summary(lambda number: NUMBERS.get(number, ""))
    time_s = seconds(duration) if duration is not None else inf
    store = flags.store()
    state = _state(store, what)
    if state is None:
        if time_s != inf or points:
            raise RuntimeFailure("--time and --point are for a container, not for a recording")
        _read(summary, what)
    else:
        until = "Ctrl-C" if duration is None else f"{duration} are over, or Ctrl-C"
        _tell(flags, f"{what} is looked at, until {until}")
        _watch(summary, store, state, points, time_s)
    data = _made(summary, plot, os.path.basename(what))
    if output == "-":
        sys.stdout.buffer.write(data)
        return
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    _tell(flags, f"{output} is written: {summary.records} records of what happened")


def _tell(flags: Globals, text: str) -> None:
    """A person at a terminal."""
    if flags.log.to_person:
        flags.log.write("info", text)


def _state(store: Store, what: str) -> State | None:
    """Of the container of that name. Raises: RuntimeFailure."""
    if "/" in what:
        return None
    try:
        return store.load(what)
    except RuntimeFailure as error:
        if os.path.exists(what):
            return None
        if isinstance(error, NoContainer):
            raise RuntimeFailure(f"no container and no recording: {what}") from None
        raise


def _read(summary: Summary, path: str) -> None:
    """Raises: RuntimeFailure if there is nothing to be read; a damaged end is said in the page."""
    from runsc.containers.watching import recorded  # noqa: PLC0415

    try:
        with open(path, "rb") as file:
            for data in recorded(file):
                summary.add(data)
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    except ValueError as error:
        if not summary.records:
            raise RuntimeFailure(f"{path}: {error}") from None
        summary.problem = str(error)


def _watch(
    summary: Summary, store: Store, state: State, points: tuple[str, ...], time_s: float
) -> None:
    from runsc.containers import following, lifecycle  # noqa: PLC0415

    lifecycle.require_running(state)
    try:
        wanted = points or following.KEPT
        with following.watched(store, state, wanted) as session:
            told = following.followed(
                store, state, session, sampled=True, time_s=time_s
            )
            with closing(told):
                for data in told:
                    summary.add(data)
    except ValueError as error:
        summary.problem = str(error)


def _made(summary: Summary, plot: str | None, title: str) -> bytes:
    from runsc.report import page, tree  # noqa: PLC0415

    if plot is None:
        return tree.html(page.page(summary, title))
    picture = page.picture(summary, plot)
    if picture is None:
        raise RuntimeFailure(f"there is nothing to draw for --plot {plot}")
    return tree.svg(picture)
