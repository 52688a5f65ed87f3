"""runsc top: what sandboxes do now, as a table that changes, or once as text."""

from __future__ import annotations

import sys
import time

import click

from runsc.commands.top_rows import lines
from runsc.containers.durations import seconds
from runsc.containers.measuring import Watch
from runsc.errors import RuntimeFailure
from runsc.options import Globals

ENOUGH_S = 20.0
"""For figures of a second: then who has not answered has none."""


@click.command(
    help="Show what the sandboxes below --root do, or those of the containers CONTAINER-ID: tasks,"
    " CPU time, system calls, page faults, memory, packets, kills because memory ran out, once a"
    " second; and the processes of the one that is chosen. While it runs, system calls are measured"
    " as by `debug --profile`.\n\nWithout a terminal, or with --once, it is text, once."
    "\n\n\b\nExamples:\n"
    "  runsc top                                  all sandboxes of this user\n"
    "  runsc top --once web                       one, as text"
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
