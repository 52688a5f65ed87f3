"""runsc ps: the processes of a container."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.log import printable
from runsc.options import Globals
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from sentry.control.protocol import ProcessInfo

HEADER = "UID          PID    PPID  C STIME TTY          TIME CMD"


def line(process: ProcessInfo, now_s: float) -> str:
    """One process as `ps -f` shows it; user and numbers are the container's."""
    seconds = process.cpu_ns // 10**9
    hours, minutes = seconds // 3600, seconds // 60 % 60
    percent = min(99, process.cpu_ns * 100 // max(process.age_ns, 1))
    started = time.localtime(now_s - process.age_ns / 1e9)
    today = time.localtime(now_s)[:3] == started[:3]
    terminal = f"pts/{process.terminal}" if process.terminal >= 0 else "?"
    return (
        f"{process.uid:<8} {process.pid:>7} {process.ppid:>7} {percent:>2} "
        f"{time.strftime('%H:%M' if today else '%b%d', started)} {terminal:<8} "
        f"{hours:02}:{minutes:02}:{seconds % 60:02} {printable(process.command)}"
    )


@click.command(
    help="List the processes of the container CONTAINER-ID, with the numbers that they have"
    " inside. "
    "As json: the pid of the one process of the host that stands for them all.",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--format", "-f", "form", default="table", metavar="table|json", help="How they are shown."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-ef]")
@click.pass_obj
def command(flags: Globals, form: str, container_id: str, options: tuple[str, ...]) -> None:
    """Ask the sandbox, for the host sees one process only."""
    if options not in ((), ("-ef",)):
        raise RuntimeFailure("options of ps(1) are not known here: what is shown is `ps -ef`")
    if form not in ("table", "json"):
        raise RuntimeFailure(f"invalid format option: {form!r}; table or json")
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    if form == "json":
        click.echo(f"[{state.pid}]")
        return
    now_s = time.time()
    reply = lifecycle.ask(store, state, Request("ps"))
    click.echo("\n".join([HEADER, *(line(process, now_s) for process in reply.processes)]))
