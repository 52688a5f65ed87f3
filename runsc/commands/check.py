"""runsc check: is this machine fit for sandboxes, and if not, what is to be done?"""

from __future__ import annotations

import re
import shutil
import sys

import click
import msgspec

from runsc.checks import engines, limits, machine, networks, walls
from runsc.checks.findings import MARKS, Finding, is_fit, table, verdict
from runsc.log import is_coloured, printable
from runsc.options import Globals

COLOURS = {MARKS["good"]: "green", MARKS["note"]: "yellow", MARKS["bad"]: "red"}


def look(flags: Globals) -> list[Finding]:
    """All that there is to be found."""
    emulated = flags.platform == "unicorn"
    return [
        machine.processor(),
        machine.kernel(),
        machine.kvm(needed=not emulated),
        machine.emulator(needed=emulated),
        *walls.namespaces(),
        walls.seccomp(),
        walls.landlock_wall(),
        networks.network(),
        limits.cgroups(),
        *limits.systemd_cgroups(),
        limits.memory(),
        limits.cpus(),
        *limits.rlimits(),
        limits.state_root(flags.root),
        *engines.engines(),
    ]


def _for_a_person(findings: list[Finding]) -> str:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    text = printable(table(findings, columns))
    if is_coloured(1):
        for mark, colour in COLOURS.items():
            text = re.sub(f"^{mark}\\b", click.style(mark, fg=colour), text, flags=re.M)
    return f"{text}\n\n{verdict(findings)}"


@click.command(
    help="Find out whether this machine can run sandboxes, for this user: KVM and which kind,"
    " namespaces, filters, network, cgroups, limits, engines. Below each finding stands what to do"
    " about it. The exit code is 0 if sandboxes run here, else 1. Nothing is changed."
    "\n\n\b\nExamples:\n"
    "  runsc check                                for the user that you are\n"
    "  runsc check --format json                  for scripts"
)
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    help="How it is shown.",
)
@click.pass_obj
def command(flags: Globals, form: str) -> None:
    """Look, and say."""
    findings = look(flags)
    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(findings)))
    else:
        click.echo(_for_a_person(findings))
    raise click.exceptions.Exit(0 if is_fit(findings) else 1)
