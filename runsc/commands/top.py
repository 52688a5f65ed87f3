"""runsc top: what sandboxes do now, as a table that changes, or once as text."""

from __future__ import annotations

import sys
import time

import click

from runsc.containers import measuring
from runsc.containers.durations import seconds
from runsc.containers.measuring import Watch, Watched
from runsc.containers.state import status
from runsc.errors import RuntimeFailure
from runsc.log import printable
from runsc.options import Globals
from runsc.report.plots import amount, size

HEADS = ("ID", "STATUS", "TASKS", "CPU%", "CALLS/s", "FAULTS/s", "MEMORY", "OF", "PKTS IN/s",
         "PKTS OUT/s", "OOM")  # fmt: skip
PROCESS_HEADS = ("PID", "PPID", "UID", "STATE", "THREADS", "CPU", "COMMAND")
ENOUGH_S = 2 * measuring.SETTLED_S
"""Until figures of a second are there."""


@click.command(
    help="Show what the sandboxes below --root do, or those of the containers CONTAINER-ID: tasks,"
    " CPU time, system calls, page faults, memory, packets, kills because memory ran out, once a"
    " second; and the processes of the one that is chosen. While it runs, system calls are measured"
    " as by `debug --profile`.\n\nWithout a terminal, or with --once, it is text, once."
)
@click.option("--once", is_flag=True, help="Measure for a second, print text, end.")
@click.option("--interval", default="1s", show_default=True, metavar="TIME", help="How often the"
    " table changes.")  # fmt: skip
@click.argument("container-id", metavar="[CONTAINER-ID]...", nargs=-1)
@click.pass_obj
def command(flags: Globals, /, once: bool, interval: str, container_id: tuple[str, ...]) -> None:
    """Ask all of them again and again."""
    interval_s = seconds(interval)
    store = flags.store()
    for name in container_id:
        store.load(name)  # that there is none is said
    on_screen = sys.stdin.isatty() and sys.stdout.isatty() and not once
    watch = Watch(store, container_id, lists=on_screen or bool(container_id))
    try:
        watch.look()
        if on_screen:
            _screen(watch, interval_s)
        else:
            _measure(watch)
            click.echo("\n".join(lines(watch, with_processes=bool(container_id))))
    finally:
        watch.close()


def _screen(watch: Watch, interval_s: float) -> None:
    try:
        from runsc.commands.top_screen import Screen  # noqa: PLC0415  an extra, and slow
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise RuntimeFailure(
            "the table needs the package textual (pip install 'runsc[top]');"
            " runsc top --once works without"
        ) from None
    Screen(watch, interval_s).run()


def _measure(watch: Watch) -> None:
    """Until there are figures of each that answers."""
    until = time.monotonic() + ENOUGH_S
    while time.monotonic() < until and not watch.is_measured:
        watch.wait(min(0.1, max(0.0, until - time.monotonic())))


def row(watched: Watched) -> tuple[str, ...]:
    """The cells of a sandbox. A sandbox that says nothing has none."""
    state, figures = watched.state, watched.figures
    if not watched.is_measured:
        return (state.id, status(state), *["-"] * (len(HEADS) - 2))
    calls = amount(figures.calls) if figures.calls >= 0 else "-"
    return (
        state.id, status(state), str(figures.tasks), f"{figures.cpu * 100:.1f}", calls,
        amount(figures.faults), size(figures.memory), size(figures.limit),
        amount(figures.received), amount(figures.sent), str(figures.kills),
    )  # fmt: skip


def processes(watched: Watched) -> list[tuple[str, ...]]:
    """The cells of its processes, most CPU time first. Names come from inside."""
    found = sorted(watched.processes, key=lambda each: -each.cpu_ns)
    return [
        (str(each.pid), str(each.ppid), str(each.uid), harmless(each.state, 2), str(each.threads),
         f"{each.cpu_ns / 1e9:.2f}", harmless(each.command, 200))
        for each in found[:MAX_PROCESSES]
    ]  # fmt: skip


MAX_PROCESSES = 500
"""Of one sandbox that are shown."""


def harmless(text: str, most: int) -> str:
    """One line of it that moves no terminal."""
    return printable(text).replace("\n", "?").replace("\t", " ")[:most]


def lines(watch: Watch, *, with_processes: bool) -> list[str]:
    """All as text."""
    sandboxes = list(watch.sandboxes.values())
    result = _table([HEADS, *map(row, sandboxes)])
    if with_processes:
        for watched in sandboxes:
            result += ["", *_table([PROCESS_HEADS, *processes(watched)])]
    return result


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip()
        for each in rows
    ]
