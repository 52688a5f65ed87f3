"""runsc debug: a look into the sandbox of a container, for who works on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from runsc.commands.events import seconds
from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.log import printable
from runsc.options import Globals
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from sentry.control.protocol import Cost, Profile


def lines(profile: Profile) -> list[str]:
    """The report: where the kernel thread's time went, then calls by their cost, then counts."""
    elapsed = profile.elapsed_ns or 1  # the sandbox may say anything
    busy = sum(cost.total_ns for cost in profile.calls.values())
    exits = profile.counters.get("exits", 0)
    shares = {
        "waiting for programs": profile.waited_ns,
        "system calls": busy,
        "page faults": profile.faults.total_ns,
        "dispatch, timers, descriptors": profile.other_ns,
    }
    result = [f"{elapsed / 1e9:.3f} s, {profile.turns} turns of the loop", ""]
    for name, ns in shares.items():
        result.append(f"{name:32}{ns / 1e6:12.3f} ms {ns * 100 / elapsed:6.1f} %")
    result += [
        "",
        f"{'programs (CPU time)':32}{profile.guest_ns / 1e6:12.3f} ms",
        f"{'exits, about':32}{exits * profile.exit_ns / 1e6:12.3f} ms",
        f"{'replies of the Gofer':32}{profile.gofer.total_ns / 1e6:12.3f} ms"
        f" for {profile.gofer.count}",
        "",
        f"{'call':24}{'count':>9}{'total ms':>12}{'mean us':>10}{'longest us':>12}",
    ]
    rows = {"(page fault)": profile.faults, **profile.calls}
    result += [row(name, cost) for name, cost in sorted(rows.items(), key=_weight) if cost.count]
    result += ["", *(f"{printable(name):24}{count:9}" for name, count in profile.counters.items())]
    if profile.long_steps:
        result += ["", "Since the start, held up for more than 50 ms of CPU time by:"]
        steps = sorted(profile.long_steps.items(), key=_weight)
        result += [row(name, cost) for name, cost in steps]
    return result


def row(name: str, cost: Cost) -> str:
    """One kind of work."""
    mean = cost.total_ns / (cost.count or 1) / 1e3
    total, longest = cost.total_ns / 1e6, cost.longest_ns / 1e3
    return f"{printable(name):24}{cost.count:9}{total:12.3f}{mean:10.2f}{longest:12.1f}"


def _weight(item: tuple[str, Cost]) -> int:
    return -item[1].total_ns


@click.command(
    help="Look into the kernel of the container CONTAINER-ID, which runs: with --profile"
    " where its time"
    " goes, with --counts how many tasks, open files, pages and so on it has.\n\n"
    "What a program could not do is shown by another flag: runsc --debug run ..."
)
@click.option("--counts", is_flag=True, help="How much of everything it has, as JSON.")
@click.option("--profile", metavar="TIME", help="Measure for so long (such as 5s).")
@click.option(
    "--format", "-f", "form", default="table", metavar="table|json", help="How a profile is shown."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(
    flags: Globals, counts: bool, profile: str | None, form: str, container_id: str
) -> None:
    """Ask the sandbox."""
    if counts == (profile is not None):
        raise RuntimeFailure("nothing was asked for, or two things: see runsc debug --help")
    if form not in ("table", "json"):
        raise RuntimeFailure(f"invalid format option: {form!r}; table or json")
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    if profile is None:
        reply = lifecycle.ask(store, state, Request("counts"))
        click.echo(msgspec.json.format(msgspec.json.encode(reply.counts)))
        return
    time_s = seconds(profile)
    request = Request("profile", time_ns=int(time_s * 1e9))
    found = lifecycle.ask(store, state, request, time_s + lifecycle.ANSWER_S).profile
    if found is None:
        raise RuntimeFailure("the sandbox gave no profile")
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        click.echo("\n".join(lines(found)))
