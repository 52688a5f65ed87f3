"""runsc inject: faults in a sandbox that runs."""

from __future__ import annotations

import click

from runsc import faults
from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.options import Globals
from sentry.control.orders import InjectOrder
from sentry.control.protocol import Request
from sentry.faults import InjectState


@click.group(
    help="Have system calls, the Gofer or the network of a sandbox fail or be late, by rules. See"
    " docs/faults.md."
    "\n\n\b\nExamples:\n"
    "  runsc inject set web 'read: errno=EIO, path=/data/**'\n"
    "  runsc inject clear web"
)
def command() -> None:
    """What was wrong is a RuntimeFailure."""


@command.command("set", help="Each RULE is a rule such as `write: errno=ENOSPC, path=/data/**`, or"
    " a file with rules. They take the place of all that were there.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("rules", metavar="RULE|FILE...", nargs=-1, required=True)
@click.pass_obj
def set_(flags: Globals, /, container_id: str, rules: tuple[str, ...]) -> None:
    """All or none."""
    found = tuple(rule for given in rules for rule in faults.read(given))
    _ask(flags, container_id, InjectOrder(found))


@command.command(help="No faults any more in the sandbox of CONTAINER-ID.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def clear(flags: Globals, /, container_id: str) -> None:
    """No rules."""
    _ask(flags, container_id, InjectOrder(()))


@command.command(help="Print the rules of the sandbox of CONTAINER-ID, and how often each fitted,"
    " and did harm.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def show(flags: Globals, /, container_id: str) -> None:
    """So what is printed can be given to `set`."""
    for state in _ask(flags, container_id, InjectOrder()):
        text = faults.line_of(state.rule)
        click.echo("".join(c if c.isprintable() else "?" for c in text))
        click.echo(f"# fitted {state.fitted}, injected {state.injected}")


def _ask(flags: Globals, container_id: str, order: InjectOrder) -> list[InjectState]:
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    reply = lifecycle.ask(store, state, Request("inject", inject=order))
    if reply.error:
        raise RuntimeFailure(reply.error)
    return reply.injected
