"""runsc policy: who decides on the system calls of a container that runs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile

import click
from click.core import ParameterSource

from runsc.containers import lifecycle, listener
from runsc.containers.container import Store
from runsc.containers.state import State
from runsc.errors import RuntimeFailure, why
from runsc.launch.policy import LEARN, read
from runsc.options import Globals
from sentry.control.answers import PolicyTold, QuestionTold
from sentry.control.orders import PolicyOrder
from sentry.control.protocol import Request


@click.group(
    help="Who decides on the system calls of a container: handlers in Python, or rules as TOML, see"
    " docs/policies.md."
    "\n\n\b\nExamples:\n"
    "  runsc policy load web rules.toml\n"
    "  runsc policy learn -o rules.toml make      what it needs, and no more"
)
def command() -> None:
    """What was wrong is a RuntimeFailure."""


@command.command(help="FILE decides on the system calls of the container CONTAINER-ID from now on,"
    " in place of what did before; without one nobody does.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("file", metavar="FILE", required=False)
@click.pass_obj
def load(flags: Globals, /, container_id: str, file: str | None) -> None:
    """A policy that cannot be loaded changes nothing."""
    policy = read(file) if file is not None else None
    store = flags.store()
    _ask(store, store.load(container_id), PolicyOrder("load", policy))


@command.command(help="Print the policy of the container CONTAINER-ID as Python, and as comments"
    " behind it what came of it: how often each handler has decided what, or failed.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def show(flags: Globals, /, container_id: str) -> None:
    """So what is printed can be given to `load`."""
    store = flags.store()
    told = _ask(store, store.load(container_id), PolicyOrder("show"))
    for line in told.source.splitlines():
        click.echo(_printable(line))
    for name, count in sorted(told.counts.items()):
        click.echo(f"# {_printable(name)}: {count}")


@command.command(help="Print what the policy of the container CONTAINER-ID asks and nobody has"
    " answered, a line for each: a number, what is to be done by whom, how long there is, and what"
    " the policy says of it.")  # fmt: skip
@click.option("--follow", "-f", is_flag=True, help="Go on with what is asked from now on.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def pending(flags: Globals, /, container_id: str, follow: bool) -> None:
    """To the end of the container with --follow."""
    store = flags.store()
    state = store.load(container_id)
    told = _ask(store, state, PolicyOrder("show"))
    after = 0
    while True:
        for question in told.questions:
            after = max(after, question.number)
            click.echo(_line(question))
        if not follow:
            return
        try:
            path = store.path(state.id, "control.sock")
            found = listener.ask(path, Request("questions", after=after), math.inf).policy
        except (OSError, ValueError):
            return  # it has ended
        if found is None:
            return
        told = found


@command.command(help="Answer what was asked, by its number. VERDICT is allow, deny, deny ERROR"
    " (EACCES, …), kill or result NUMBER.")  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("number", metavar="NUMBER", type=int)
@click.argument("verdict", metavar="VERDICT", nargs=-1, required=True)
@click.pass_obj
def answer(flags: Globals, /, container_id: str, number: int, verdict: tuple[str, ...]) -> None:
    """Once: the call goes on then."""
    store = flags.store()
    order = PolicyOrder("answer", number=number, verdict=" ".join(verdict))
    _ask(store, store.load(container_id), order)


@command.command("compile", help="Print the Python that the rules of FILE, a TOML document, mean.")
@click.argument("file", metavar="FILE")
def compile_(file: str) -> None:
    """What a sandbox is given."""
    click.echo(read(file).source, nl=False)


@command.command(help="Replay what `trace watch --record` or `learn --record` has written against"
    " the policy FILE, and print what it would not let happen. Ends with 1 if there is"
    " something.")  # fmt: skip
@click.argument("file", metavar="FILE")
@click.argument("recording", metavar="RECORDING")
def test(file: str, recording: str) -> None:
    """No sandbox is needed."""
    from runsc.containers import policy_test  # noqa: PLC0415  few test

    policy = read(file)
    found = False
    for line in policy_test.denials(policy, recording):
        found = True
        click.echo(_printable(line))
    if found:
        raise click.exceptions.Exit(1)


@command.command(
    help="Run COMMAND as `do` does, and write the least policy with which it still runs: which"
    " files it opens, which programs it runs, where it connects to, which calls it makes.",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
@click.option("--output", "-o", metavar="FILE", required=True, help="The policy, as TOML.")
@click.option("--record", metavar="FILE", help="Keep what was seen, for `test`.")
@click.argument("args", nargs=-1, required=True, metavar="[OPTION OF do]... COMMAND [ARG]...")
@click.pass_context
def learn(context: click.Context, output: str, record: str | None, args: tuple[str, ...]) -> None:
    """Ends with the program's code."""
    from runsc.containers import policy_learn  # noqa: PLC0415  few learn

    flags: Globals = context.obj
    if flags.pod_init_config is not None:
        raise click.UsageError("--pod-init-config is what `learn` itself listens with")
    with tempfile.TemporaryDirectory(prefix="runsc-learn-") as folder:
        seen = record or os.path.join(folder, "seen")
        session = policy_learn.session(seen, folder)
        words = [sys.executable, "-m", "runsc", *_said(context.find_root()), "--root", flags.root]
        words += ["--pod-init-config", session]
        code = subprocess.run(
            [*words, "do", "--policy", LEARN, *args], check=False
        ).returncode
        try:
            text = policy_learn.policy(seen)
        except OSError as error:
            raise RuntimeFailure(f"the program was not run: {why(error)}") from None
        except ValueError as error:
            raise RuntimeFailure(f"no policy was learnt: {error}") from None
    with open(output, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    raise click.exceptions.Exit(code if code >= 0 else 128 - code)


def _said(root: click.Context) -> list[str]:
    """The flags before the command, for another one: none is to have less effect there."""
    words: list[str] = []
    for each in root.command.params:
        name = each.name or ""
        if root.get_parameter_source(name) is ParameterSource.COMMANDLINE and name in root.params:
            value = "" if isinstance(root.params[name], bool) else f"={root.params[name]}"
            words.append(f"{each.opts[0]}{value}")
    return words


def _ask(store: Store, state: State, order: PolicyOrder) -> PolicyTold:
    lifecycle.require_running(state)
    reply = lifecycle.ask(store, state, Request("policy", policy=order))
    if reply.error:
        raise RuntimeFailure(reply.error)
    return reply.policy or PolicyTold()


def _line(question: QuestionTold) -> str:
    """What the container's programs have chosen is made harmless."""
    left_s = max(0, question.left_ns) // 10**9
    who = f"{question.program}[{question.pid}]"
    return _printable(
        f"{question.number} {question.what} by {who}, {left_s} s left: {question.text}"
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
