"""runsc debug: a look into the sandbox of a container, for who works on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import msgspec

from runsc.commands import stacks
from runsc.containers import lifecycle
from runsc.containers.container import Store
from runsc.containers.durations import seconds
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.log import printable, printable_json
from runsc.options import Globals
from sentry.control.orders import Trace
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from sentry.control.answers import Cost, Profile


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


def trace(text: str, limit: int) -> Trace:
    """--strace. Raises: RuntimeFailure."""
    if text in ("on", "all", "true"):
        return Trace(limit=limit)
    if text in ("off", "false"):
        return Trace(on=False)
    from sentry.syscalls.strace.families import check  # noqa: PLC0415  few ask for it

    calls = [word for word in text.removeprefix("!").split(",") if word]
    problem = check(calls) if calls else "on, off, or a list of system calls"
    if problem:
        raise RuntimeFailure(f"--strace: {problem}")
    return Trace(calls=tuple(calls), others=text.startswith("!"), limit=limit)


def _change(store: Store, state: State, request: Request, path: str | None = None) -> None:
    """What is written from now on. Raises: RuntimeFailure."""
    fds = []
    if path is not None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fds.append(os.open(path, flags, 0o644))
    reply = lifecycle.ask(store, state, request, fds=fds)
    for fd in fds:
        os.close(fd)
    if reply.error:
        raise RuntimeFailure(f'{reply.error}: "{state.id}"')


@click.command(
    help="Look into the kernel of the container CONTAINER-ID, which runs: with --profile"
    " where its time"
    " goes, with --stacks where its programs and the kernel stand, with --counts how many tasks,"
    " open files, pages and so on it has; write with --packets what goes by its interfaces into a"
    " file; or change what it writes to its log.\n\n"
    "What a program could not do is shown by another flag: runsc --debug run ..."
    "\n\n\b\nExamples:\n"
    "  runsc debug --stacks web            what each of its tasks waits for\n"
    "  runsc debug --strace %network web   its calls, from now on\n"
    "  runsc debug --profile 5s web        where the time goes"
)
@click.option("--counts", is_flag=True, help="How much of everything it has, as JSON.")
@click.option(
    "--stacks",
    "stacked",
    is_flag=True,
    help="Every task, with the call that it sleeps in and how long; the kernel's coroutines behind"
    " them and beside; the stacks of Python's threads.",
)
@click.option(
    "--strace",
    "traced",
    metavar="on|off|LIST",
    help="Write the programs' system calls from now on, or no more: all, or those of a LIST as"
    " `runsc --strace-syscalls` takes it. Into the sandbox's log, or the file of"
    " `runsc --strace-log=FILE debug ...`.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "2", "info", "1", "warning", "0"]),
    metavar="debug|info",
    help="debug: count from now on what programs ask for and do not get. info: tell that in the"
    " log, and count no more.",
)
@click.option(
    "--packets",
    metavar="FILE",
    help="Write what goes by its interfaces into a file of pcapng (-: to standard output), until"
    " Ctrl-C or the container's end. Connections of TCP within the sandbox have no packets.",
)
@click.option("--interface", metavar="NAME", default="", help="With --packets: this one alone.")
@click.option(
    "--repl",
    is_flag=True,
    help="A prompt of Python on its kernel's objects, or what standard input has. Only if it was"
    " started with `runsc --repl`.",
)
@click.option("--profile", metavar="TIME", help="Measure for so long (such as 5s).")
@click.option(
    "--format", "-f", "form", default="table", metavar="table|json", help="How a profile is shown."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(
    flags: Globals,
    /,
    counts: bool,
    stacked: bool,
    traced: str | None,
    log_level: str | None,
    packets: str | None,
    interface: str,
    repl: bool,
    profile: str | None,
    form: str,
    container_id: str,
) -> None:
    """Ask the sandbox."""
    given = [each is not None for each in (traced, log_level, packets, profile)]
    if sum([counts, stacked, repl, *given]) != 1:
        raise RuntimeFailure("nothing was asked for, or two things: see runsc debug --help")
    if form not in ("table", "json"):
        raise RuntimeFailure(f"invalid format option: {form!r}; table or json")
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    if counts:
        reply = lifecycle.ask(store, state, Request("counts"))
        click.echo(printable_json(msgspec.json.format(msgspec.json.encode(reply.counts))))
    elif stacked:
        for line in stacks.lines(store, state):
            click.echo(line)
    elif traced is not None:
        wanted = trace(traced, flags.strace_limit)
        path = flags.strace_log if wanted.on else None
        _change(store, state, Request("strace", trace=wanted), path)
    elif log_level is not None:
        _change(store, state, Request("log", debug=log_level in ("debug", "2")))
    elif packets is not None:
        _capture(store, state, packets, interface)
    elif repl:
        from runsc.commands import repl as prompt  # noqa: PLC0415  few ask

        prompt.run(store, state)
    elif profile is not None:
        _profile(store, state, profile, form)


def _capture(store: Store, state: State, path: str, interface: str) -> None:
    """Into a file that nobody else reads. Raises: RuntimeFailure, OSError."""
    from runsc.containers import capturing, listener, pcapng, signals  # noqa: PLC0415  few ask

    created = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    stop = signals.catch(as_program=False)
    with stop, listener.connect(store.path(state.id, "control.sock")) as sock:
        fd = os.dup(1) if path == "-" else os.open(path, created, 0o600)
        with os.fdopen(fd, "wb") as file:
            writing = capturing.Capturing(sock, pcapng.Writer(file), interface)
            writing.run(stop.fileno())
    if writing.lost:
        click.echo(f"{writing.lost} packets were lost: nobody had room for them", err=True)


def _profile(store: Store, state: State, duration: str, form: str) -> None:
    time_s = seconds(duration)
    request = Request("profile", time_ns=int(time_s * 1e9))
    found = lifecycle.ask(store, state, request, time_s + lifecycle.ANSWER_S).profile
    if found is None:
        raise RuntimeFailure("the sandbox gave no profile")
    if form == "json":
        click.echo(printable_json(msgspec.json.format(msgspec.json.encode(found))))
    else:
        click.echo("\n".join(lines(found)))
