"""runsc debug: a look into the sandbox of a container, for who works on it."""

from __future__ import annotations

import click
import msgspec

from runsc import lifecycle
from runsc.errors import RuntimeFailure
from runsc.options import Globals
from sentry.control.protocol import Request


@click.command(help="Look into the sandbox of the container CONTAINER-ID.")
@click.option("--counts", is_flag=True, help="How much of everything there is, as JSON.")
@click.argument("container-id")
@click.pass_obj
def command(flags: Globals, counts: bool, container_id: str) -> None:
    """Ask the sandbox."""
    if not counts:
        raise RuntimeFailure("nothing was asked for: see runsc debug --help")
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    reply = lifecycle.ask(store, state, Request("counts"))
    click.echo(msgspec.json.format(msgspec.json.encode(reply.counts)))
