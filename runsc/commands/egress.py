"""runsc egress: what may leave a container that runs, and what was denied."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import click

from runsc.containers import lifecycle, listener
from runsc.containers.container import Store
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.launch.egress import read, way_to_brokers
from runsc.options import Globals
from sentry.control.answers import Denied, EgressState
from sentry.control.protocol import Request

NONE = -1
"""Of denials."""


@click.group(
    help="What may leave a container that was started with --egress, and what was denied. The"
    " policy is a TOML document, see docs/egress.md."
    "\n\n\b\nExamples:\n"
    "  runsc egress set web allow.toml\n"
    "  runsc egress log -f web              what is denied, as it happens"
)
def command() -> None:
    """What was wrong is a RuntimeFailure."""


@command.command("set", help="FILE is the policy of the container CONTAINER-ID from now on; what"
    " it no longer allows is reset.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("file", metavar="FILE")
@click.pass_obj
def set_(flags: Globals, /, container_id: str, file: str) -> None:
    """All at once."""
    policy = read(file)
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    with way_to_brokers(flags, policy, store, state) as fds:
        _ask(store, state, Request("egress", egress=policy, after=NONE), fds)


@command.command(help="Print the policy of the container CONTAINER-ID, and as comments behind it"
    " what came of it.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def show(flags: Globals, /, container_id: str) -> None:
    """So what is printed can be given to `set`."""
    store = flags.store()
    found = _ask(store, store.load(container_id), Request("egress", after=NONE))
    for line in found.policy.splitlines():
        click.echo(_printable(line))
    for name, count in found.counts.items():
        click.echo(f"# {_printable(name)}: {count}")


@command.command(help="Print what was denied in the container CONTAINER-ID lately, a line for each:"
    " when, what, for whom, and why.")  # fmt: skip
@click.option("--follow", "-f", is_flag=True, help="Go on with what is denied from now on.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def log(flags: Globals, /, container_id: str, follow: bool) -> None:
    """To the end of the container with --follow."""
    store = flags.store()
    for denied in _denials(store, store.load(container_id), follow):
        click.echo(_line(denied))


def _ask(store: Store, state: State, request: Request, fds: tuple[int, ...] = ()) -> EgressState:
    lifecycle.require_running(state)
    reply = lifecycle.ask(store, state, request, fds=fds)
    if reply.error or reply.egress is None:
        raise RuntimeFailure(reply.error or "the sandbox does not say what may leave")
    return reply.egress


def _denials(store: Store, state: State, follow: bool) -> Iterator[Denied]:
    found = _ask(store, state, Request("egress"))
    after = 0
    while True:
        for denied in found.denials:
            after = max(after, denied.number)
            yield denied
        if not follow:
            return
        request = Request("denials", after=after)
        try:
            path = store.path(state.id, "control.sock")
            more = listener.ask(path, request, math.inf).egress
        except (OSError, ValueError):
            return  # it has ended
        if more is None or not more.denials:
            return  # no Sentry of ours says that
        found = more


def _line(denied: Denied) -> str:
    """What the container's programs have chosen is made harmless."""
    at_s, rest_ns = divmod(denied.at_ns, 10**9)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{rest_ns // 10**6:03}Z"
    why = "" if denied.reason in ("", "a rule") else f": {denied.reason}"
    rule = f"rule {denied.rule}{why}" if denied.rule else denied.reason
    names = ",".join(denied.names)
    if denied.address:
        host = f"[{denied.address}]" if ":" in denied.address else denied.address
        port = "" if denied.port is None else f":{denied.port}"
        what = f"{_PROTOCOLS.get(denied.protocol, denied.protocol)} {host}{port}"
        what += f" ({names})" if names else ""
    else:
        what = f"dns {names}" if names else "frame"
    who = f"{denied.program}[{denied.pid}] uid {denied.uid}" if denied.program else "-"
    return _printable(f"{stamp} {what} by {who}: {rule}")


_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
