"""The command line: global flags, and sub-commands that are imported when they are used."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import Any

import click

from runsc import __version__
from runsc.errors import RuntimeFailure

COMMANDS = {
    "create": "Create a container; it runs after start.",
    "debug": "Look into the sandbox of a container.",
    "delete": "Delete a container that has stopped, or end it first.",
    "do": "Run a command over the host's files, read-only, under an overlay in memory.",
    "events": "Show what a container uses, once or at intervals.",
    "exec": "Run another process in a container.",
    "features": "Print what this runtime can do, as JSON.",
    "help": "Show how a command is used, or which system calls there are.",
    "kill": "Send a signal to a container.",
    "list": "List containers.",
    "pause": "Hold all processes of a container.",
    "ps": "List the processes of a container.",
    "resume": "Let the processes of a paused container go on.",
    "run": "Create and run a container.",
    "spec": "Write a config.json to start from.",
    "start": "Start a container that was created.",
    "state": "Print the state of a container.",
    "update": "Change the limits of a container that runs.",
}
"""Name → first line of the help. The function is `runsc.commands.<name>.command`."""
PREFIXES = {
    "create": "runsc create failed: ",
    "do": "runsc do failed: ",
    "exec": "exec failed: ",
    "run": "runsc run failed: ",
}
"""What runc puts before the message of a command that fails; nothing for the others."""


class _Lazy(click.Group):
    """A group whose commands are modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"runsc.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__, "--version", "-v", message=f"runsc version {__version__}\nspec: 1.2.0"
)
@click.option("--root", default=None, metavar="DIR", help="Where the state of containers is kept.")
@click.option(
    "--platform",
    type=click.Choice(["kvm", "unicorn"]),
    default="kvm",
    show_default=True,
    help="What runs the program: KVM, or the unicorn emulator (slow, and no security boundary).",
)
@click.option(
    "--network",
    type=click.Choice(["none", "host"]),
    default="none",
    show_default=True,
    help="none: a loopback interface of its own; host: sockets of the host's network namespace, or"
    " of the one that config.json names.",
)
@click.option("--debug", is_flag=True, help="Log more.")
@click.option("--debug-log", metavar="FILE", help="Where Sentry and Gofer log; default: --log.")
@click.option("--strace", is_flag=True, help="Log the program's system calls.")
@click.option("--log", metavar="FILE", help="Where messages go; default: standard error.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="Their form."
)
@click.option(
    "--overlay2",
    default="root:memory",
    metavar="WHERE",
    show_default=True,
    help="root:memory keeps what is written to the root in the sandbox; none writes through.",
)
@click.option(
    "--system-calls",
    type=click.Choice(["auto", "mailbox", "exit", "inline"]),
    default="auto",
    show_default=True,
    help="On kvm: how calls reach the kernel; auto chooses by what they cost on this machine.",
)
@click.option("--systemd-cgroup", is_flag=True, help="Refused: there is no systemd here.")
@click.option(
    "--rootless",
    type=click.Choice(["true", "false", "auto"]),
    default="auto",
    help="No effect: what this user may not do with cgroups is left out.",
)
@click.option("--criu", hidden=True, metavar="FILE")
@click.option("--memory", metavar="SIZE", help="Memory of the sandbox; default: half the host's.")
@click.option("--TESTONLY-unsafe-nofilter", "no_filter", is_flag=True, hidden=True)
@click.option("--TESTONLY-trap", "trap", is_flag=True, hidden=True)
@click.pass_context
def main_group(ctx: click.Context, /, **flags: Any) -> None:
    """Run untrusted Linux programs, each container on an application kernel of its own."""
    from runsc.containers.names import default_root  # noqa: PLC0415  not for --help
    from runsc.filters import Switches  # noqa: PLC0415
    from runsc.log import Log  # noqa: PLC0415
    from runsc.oci.convert import memory_size  # noqa: PLC0415
    from runsc.options import OVERLAYS, Globals  # noqa: PLC0415

    overlay = OVERLAYS.get(flags["overlay2"])
    if overlay is None:
        raise click.BadParameter(f"{flags['overlay2']!r}: one of {', '.join(OVERLAYS)}")
    ctx.obj = Globals(
        root=flags["root"] or default_root(),
        log=Log(flags["log"], flags["log_format"], flags["debug"]),
        platform=flags["platform"],
        network=flags["network"],
        debug=flags["debug"],
        debug_log=flags["debug_log"],
        strace=flags["strace"],
        overlay=overlay,
        memory=memory_size(flags["memory"]) if flags["memory"] else None,
        system_calls=flags["system_calls"],
        switches=Switches(flags["no_filter"], flags["trap"]),
        systemd_cgroup=flags["systemd_cgroup"],
    )


def _report(context: click.Context, error: RuntimeFailure) -> None:
    from runsc.log import Log  # noqa: PLC0415
    from runsc.options import Globals  # noqa: PLC0415

    found = context.obj
    log = found.log if isinstance(found, Globals) else Log(None, "text", False)
    prefix = PREFIXES.get(context.invoked_subcommand or "", "")
    log.error(f"{prefix}{error}", sys.stderr)


def _report_usage(error: click.ClickException) -> None:
    """A person sees click's text; a client reads the log."""
    context = getattr(error, "ctx", None)
    found = context.find_root().obj if context is not None else None
    if found is not None and not found.log.to_stderr:
        found.log.write("error", error.format_message())
    error.show()


def main(args: list[str] | None = None) -> None:
    """The console script. It ends, or forks, before a collection would pay."""
    gc.disable()
    args = sys.argv[1:] if args is None else args
    try:
        with main_group.make_context("runsc", list(args)) as context:
            try:
                main_group.invoke(context)
                code = 0
            except RuntimeFailure as error:
                _report(context, error)
                code = error.code
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                where = f"open {error.filename}: " if error.filename else ""
                _report(context, RuntimeFailure(where + reason))
                code = 1
    except click.ClickException as error:
        _report_usage(error)
        code = 1
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.stdout.flush()
    sys.exit(code)
