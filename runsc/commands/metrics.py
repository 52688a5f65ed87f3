"""runsc metrics: figures of a sandbox, as Prometheus reads them."""

from __future__ import annotations

import re

import click

from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.log import printable
from runsc.options import Globals
from sentry.control.metrics import METRICS, labels
from sentry.control.protocol import Request

PREFIX = "runsc_"
"""As gVisor's metric server has it."""
_TEXT = r'"(?:[^"\\\n]|\\[\\"n])*"'
LABELS = re.compile(
    rf"(?:\{{(?:sysno={_TEXT},name={_TEXT}|container={_TEXT}"
    rf"|session={_TEXT},sink={_TEXT},number={_TEXT})\}})?"
)
"""Those that figures of a sandbox have: another text could be figures of other sandboxes."""


def lines(counts: dict[str, int], sandbox: str) -> list[str]:
    """The text format, version 0.0.4. Every figure has the label `sandbox`; what a sandbox says
    that is none of ours is left out."""
    by_name: dict[str, list[tuple[str, int]]] = {}
    for shown, value in counts.items():
        name, brace, rest = shown.partition("{")
        if LABELS.fullmatch(brace + rest):
            by_name.setdefault(name, []).append((brace + rest, value))
    result = []
    own = labels(sandbox=sandbox)[:-1]
    for metric in METRICS:
        values = by_name.get(metric.name)
        if not values:
            continue
        name = PREFIX + metric.name
        result += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for rest, value in values:
            more = f",{rest[1:]}" if rest else "}"
            result.append(printable(f"{name}{own}{more} {value}"))
    return result


@click.command(
    help="Print what the sandbox of the container CONTAINER-ID counts, in the text format of"
    " Prometheus: memory, CPU time and tasks of its containers, packets, system calls that there"
    " are not, records of trace sessions."
    "\n\n\b\nExample:\n"
    "  runsc metrics web"
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, /, container_id: str) -> None:
    """Ask once."""
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    reply = lifecycle.ask(store, state, Request("metrics"))
    if reply.error:
        raise RuntimeFailure(f'{reply.error}: "{container_id}"')
    for line in lines(reply.counts, state.sandbox or container_id):
        click.echo(line)
