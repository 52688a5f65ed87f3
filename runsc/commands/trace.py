"""runsc trace: who listens to what happens in a sandbox that runs, and what that is."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click
import msgspec

from runsc.containers import lifecycle
from runsc.containers.container import Store
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.log import printable_json
from runsc.options import Globals
from sentry.control.protocol import Reply, Request

if TYPE_CHECKING:
    from runsc.containers.watching import Filter
    from sentry.config import TraceSession


@click.group(
    help="Say who listens to what happens in a sandbox, and show what happens. Sessions are"
    " described by JSON documents, as gVisor's are: see docs/monitoring.md."
    "\n\n\b\nExample:\n"
    "  runsc trace watch web                      what happens in it, live"
)
def command() -> None:
    """What was wrong is a RuntimeFailure."""


@command.command(help="Begin a session in the sandbox of the container CONTAINER-ID.")
@click.option("--config", metavar="FILE", required=True, help="The session, as a JSON document.")
@click.option("--force", is_flag=True, help="In place of one of its name, if there is one.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def create(flags: Globals, /, config: str, force: bool, container_id: str) -> None:
    """Its sinks are connected here: the sandbox may not."""
    from runsc.launch import tracing  # noqa: PLC0415  few need all that

    store, state = _running(flags, container_id)
    made = tracing.connect(tracing.read(config))
    try:
        for warning in made.warnings:
            flags.log.warning(warning)
        _begin(store, state, made.session, made.fds, force=force)
    finally:
        made.close()
    click.echo(f"Trace session {_quoted(made.session.name)} created.")


@command.command(help="End a session in the sandbox of the container CONTAINER-ID.")
@click.option("--name", metavar="NAME", default="Default", show_default=True, help="Which one.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def delete(flags: Globals, /, name: str, container_id: str) -> None:
    """Its listeners see the end of their connections."""
    store, state = _running(flags, container_id)
    _ask(store, state, Request("untrace", name=name))
    click.echo(f"Trace session {_quoted(name)} deleted.")


@command.command("list", help="Show the sessions in the sandbox of the container CONTAINER-ID, with"
    " how many records each sink has lost.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def list_(flags: Globals, /, container_id: str) -> None:
    """In gVisor's form."""
    store, state = _running(flags, container_id)
    found = _ask(store, state, Request("traces")).traces
    click.echo(f"SESSIONS ({len(found)})")
    for session in found:
        click.echo(_quoted(session.name))
        for sink in session.sinks:
            click.echo(f"\tSink: {_quoted(sink.name)}, dropped: {sink.dropped}")


@command.command(help="Show which points there are, with the fields that may be asked for, and"
    " which sinks.")  # fmt: skip
def metadata() -> None:
    """Of this version: no sandbox is asked."""
    from sentry.syscalls import table  # noqa: F401, PLC0415  all declarations
    from sentry.watch.points import every  # noqa: PLC0415
    from sentry.watch.sinks import SINKS  # noqa: PLC0415

    points = list(every())
    click.echo(f"POINTS ({len(points)})")
    for point in points:
        optional, context = "|".join(point.optional), "|".join(point.contexts)
        click.echo(
            f"Name: {point.name}, optional fields: [{optional}], context fields: [{context}]"
        )
    click.echo(f"\nSINKS ({len(SINKS)})")
    for name in SINKS:
        click.echo(f"Name: {name}")


@command.command(help="Print what /proc says of each process in the sandbox of the container"
    " CONTAINER-ID: a JSON object a line, as gVisor's.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def procfs(flags: Globals, /, container_id: str) -> None:
    """For who begins to listen in the middle."""
    store, state = _running(flags, container_id)
    click.echo("PROCFS DUMP")
    after, more = 0, True
    while more:
        found = _ask(store, state, Request("procfs", after=after)).procfs
        if found is None or (found.more and not found.processes):
            raise RuntimeFailure("the sandbox does not say which processes it has")
        for process in found.processes:
            click.echo()
            click.echo(printable_json(msgspec.json.encode(process)))
            if process.status.pid <= after:
                raise RuntimeFailure("the sandbox says the same again and again")
            after = process.status.pid
        more = found.more


@command.command(help="Show what happens in the sandbox of the container CONTAINER-ID from now on,"
    " a line for each record, until Ctrl-C or its end; or with --replay what was recorded"
    " before.\n\nPoints are named as `runsc trace metadata` shows them.")  # fmt: skip
@click.option("--point", "-p", "points", metavar="NAME", multiple=True, help="Listen to this point"
    " rather than to a choice of them. May be repeated.")  # fmt: skip
@click.option("--show", metavar="PATTERN", multiple=True, help="Show only such points.")
@click.option("--pid", metavar="PID", type=int, default=0, help="Only what this process does.")
@click.option("--program", metavar="PATTERN", default="", help="Only programs of such names.")
@click.option("--failed", is_flag=True, help="Only calls that end with an error.")
@click.option("--format", "-f", "form", type=click.Choice(["text", "json"]), default="text",
    show_default=True, help="json: an object a line.")  # fmt: skip
@click.option("--record", metavar="FILE", help="Keep all records in a file, whatever is shown.")
@click.option("--replay", metavar="FILE", help="Show those of this file; no sandbox is needed.")
@click.argument("container-id", metavar="CONTAINER-ID", required=False)
@click.pass_obj
def watch(
    flags: Globals,
    /,
    points: tuple[str, ...],
    show: tuple[str, ...],
    pid: int,
    program: str,
    failed: bool,
    form: str,
    record: str | None,
    replay: str | None,
    container_id: str | None,
) -> None:
    """A session of its own beside whatever there is."""
    from runsc.containers import following  # noqa: PLC0415  few watch
    from runsc.containers.watching import Filter  # noqa: PLC0415

    shown = Filter(show, pid, program, failed)
    if (replay is None) == (container_id is None):
        raise RuntimeFailure("name a container, or a recording with --replay FILE")
    if replay is not None:
        _replay(replay, shown, form)
        return
    assert container_id is not None
    store, state = _running(flags, container_id)
    points = points or (following.WATCHED if record is None else following.KEPT)
    try:
        with (
            following.watched(store, state, points) as session,
            following.recording(record) as keep,
        ):
            told = following.followed(store, state, session, sampled=record is not None)
            with closing(told):
                lost = 0
                for data in told:
                    keep(data)
                    lost = _show(data, shown, form, lost)
    except ValueError as error:
        raise RuntimeFailure(f"the sandbox says what no Sentry says: {error}") from None


def _replay(path: str, shown: Filter, form: str) -> None:
    from runsc.containers.watching import recorded  # noqa: PLC0415

    try:
        with open(path, "rb") as file:
            lost = 0
            for data in recorded(file):
                lost = _show(data, shown, form, lost)
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    except ValueError as error:
        raise RuntimeFailure(f"{path}: {error}") from None


def _show(data: bytes, shown: Filter, form: str, lost: int) -> int:
    """A message, if it is to be shown; how many have been lost by then. Raises: ValueError."""
    from runsc.containers.watching import line, parse  # noqa: PLC0415
    from sentry.syscalls.registry import NUMBERS  # noqa: PLC0415
    from sentry.watch.messages import Line  # noqa: PLC0415

    told = parse(data, lambda number: NUMBERS.get(number, ""))
    if told is None:
        return lost
    if told.dropped != lost:
        click.echo(f"{(told.dropped - lost) % (1 << 32)} records lost", err=True)
    if shown.lets(told):
        if form == "json":
            click.echo(printable_json(msgspec.json.encode(Line(told.point, told.record))))
        else:
            click.echo(line(told))
    return told.dropped


def _begin(
    store: Store, state: State, session: TraceSession, fds: tuple[int, ...], *, force: bool
) -> None:
    _ask(store, state, Request("trace", session=session, force=force), fds)


def _running(flags: Globals, container_id: str) -> tuple[Store, State]:
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    return store, state


def _ask(store: Store, state: State, request: Request, fds: tuple[int, ...] = ()) -> Reply:
    reply = lifecycle.ask(store, state, request, fds=fds)
    if reply.error:
        raise RuntimeFailure(f'{reply.error}: "{state.id}"')
    return reply


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isprintable() else "?" for c in text) + '"'
