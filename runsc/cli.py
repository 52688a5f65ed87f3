"""The command line: global flags, and sub-commands that are imported when they are used."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runsc import __version__
from runsc.errors import FAILED, RuntimeFailure
from runsc.log import addressed, outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runsc.foreign import Taken
    from runsc.options import Globals

GROUPS = {
    "Run programs": {
        "do": "Run a program over your own files; what it writes stays in memory.",
        "run": "Run a container from a bundle, to its end.",
        "exec": "Run another program in a container that runs.",
    },
    "Containers, step by step": {
        "spec": "Write a config.json to start from: what `run` reads.",
        "create": "Make a container from a bundle; its program runs after `start`.",
        "start": "Start a container that was created.",
        "state": "Print the state of a container.",
        "list": "List containers.",
        "ps": "List the processes of a container.",
        "kill": "Send a signal to a container.",
        "pause": "Hold all processes of a container.",
        "resume": "Let the processes of a paused container go on.",
        "wait": "Wait for the end of a container, or of a process in it.",
        "delete": "Remove a container that has stopped, or end it first (--force).",
        "update": "Change the limits of a container that runs.",
        "sync": "Wait until what a container has written is on the host's disk.",
    },
    "Copies of what runs": {
        "fork": "Make copies of a container that runs, as it is now.",
        "rollback": "Put a container back to where a template of it was made.",
        "checkpoint": "Write the state of a running container into a folder.",
        "restore": "Run a container from such a state.",
        "snapshot": "Show what is in a state that `checkpoint` has written.",
        "zygote": "Keep a process from which containers start faster.",
    },
    "Say what it may do": {
        "egress": "Say which connections may leave; show what was denied.",
        "policy": "Say who decides on system calls; answer what is asked.",
        "inject": "Have calls, files or the network of a sandbox fail, by rules.",
        "clock": "Say how the time that the programs of a sandbox see goes by.",
        "port-forward": "Reach a port of a container from a port of the host.",
    },
    "See what it does": {
        "top": "Show what sandboxes do now: tasks, calls, memory, network.",
        "events": "Show what CPU and memory a container uses, once or at intervals.",
        "metrics": "Print figures of a sandbox that runs, for Prometheus.",
        "trace": "Say who listens to what happens in a sandbox; show what happens.",
        "report": "Write a page about what happens in a sandbox, or of a recording.",
        "read": "Show a file of a container.",
        "debug": "Measure where a container's time goes; count what it has.",
    },
    "Set up": {
        "check": "Find out whether this machine can run sandboxes.",
        "install": "Tell Docker, containerd or podman of this runtime.",
        "uninstall": "Take away what `install` has told an engine.",
        "completion": "Have bash, zsh or fish complete the words of runsc.",
        "features": "Print what this runtime can do, as JSON.",
        "help": "Show how a command is used, or which system calls there are.",
    },
}
"""What one wants → the commands for it: name → first line of the help.

The function is `runsc.commands.<name>.command`, with _ for -.
"""
COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}


ALONE = "runsc.alone"
"""Of a context: nothing stands behind `runsc`, so not all is shown."""


class _Lazy(click.Group):
    """A group whose commands are modules."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ALONE] = not args
        return super().parse_args(ctx, _plain(self, args, mixed=False))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = f"runsc.commands.{cmd_name.replace('-', '_')}"
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from runsc.commands.help import meant  # noqa: PLC0415  only for a mistake
            from runsc.foreign import COMMANDS as FOREIGN  # noqa: PLC0415

            if name in FOREIGN:
                raise click.UsageError(f"There is no command {name!r}: {FOREIGN[name]}.", ctx)
            raise click.UsageError(f"No such command {name!r}.{meant(name, COMMANDS)}", ctx)
        name_, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            mixed = bool(command.context_settings.get("allow_interspersed_args", True))
            rest = _plain(command, rest, mixed=mixed)
        return name_, command, rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands come first: by what one wants."""
        for wanted, commands in GROUPS.items():
            with formatter.section(wanted):
                formatter.write_dl(list(commands.items()))
        if ctx.meta.get(ALONE):
            formatter.write_paragraph()
            formatter.write_text("Flags that stand before a command: runsc --help")
            return
        click.Command.format_options(self, ctx, formatter)


def _plain(command: click.Command, args: list[str], *, mixed: bool) -> list[str]:
    """The words as click takes them. Engines use words that need nothing."""
    if not any(_is_of_go(word) for word in args):
        return args
    from runsc.words import plain  # noqa: PLC0415

    options = [option for option in command.params if isinstance(option, click.Option)]
    switches = {name for it in options if it.is_flag for name in it.opts if name[:2] == "--"}
    others = {name for it in options if not it.is_flag for name in it.opts}
    return plain(args, switches, others, mixed=mixed, last=getattr(command, "last", ""))


def _is_of_go(word: str) -> bool:
    """One dash, or a switch with a value, or one that elsewhere is a switch."""
    if word[:1] != "-":
        return False
    return (word[1:2] != "-" and len(word) > 2) or "=" in word or word == "--rootless"


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__, "--version", "-v", message=f"runsc version {__version__}\nspec: 1.2.0"
)
@click.option(
    "--root",
    default=None,
    metavar="DIR",
    help="Where it is noted which containers there are. Default: /run/runsc for root, for others"
    " $XDG_RUNTIME_DIR/runsc or /tmp/runsc-UID.",
)
@click.option(
    "--platform",
    type=click.Choice(["kvm", "unicorn"]),
    default="kvm",
    show_default=True,
    help="What runs the program. kvm: the processor itself, by /dev/kvm. unicorn: an emulated"
    " processor, for machines without /dev/kvm; slow, and no protection against hostile programs.",
)
@click.option(
    "--network",
    type=click.Choice(["none", "host", "sandbox"]),
    help="none: the program can reach itself (127.0.0.1) and nobody else. host: it reaches the"
    " network as a program of the host does, in the network namespace that config.json names if it"
    " names one. sandbox: the container has that namespace's interfaces, and packets of its own"
    " making, which the host's kernel does not look into. Default: sandbox if config.json names a"
    " network namespace, which is what engines plug their networks into, or host where this machine"
    " does not let it be so (`runsc check`); else none.",
)
@click.option(
    "--egress",
    metavar="FILE",
    help="Which connections may leave a network of the container's own, by name, address, port and"
    " program: a TOML document, see docs/egress.md. With sockets of the host no container starts.",
)
@click.option(
    "--inject",
    metavar="RULE|FILE",
    help="Have system calls, the Gofer or the network fail or be late, by rules such as"
    " `read: errno=EIO, path=/data/**, probability=0.1`, or a file with some: see docs/faults.md."
    " `runsc inject` changes them while it runs.",
)
@click.option(
    "--pod-init-config",
    metavar="FILE",
    help="Who listens to what happens in a sandbox, from before its first program runs: a JSON"
    " document as gVisor's, see docs/monitoring.md. `runsc trace` changes that while it runs.",
)
@click.option(
    "--host-uds",
    type=click.Choice(["none", "named", "open", "create", "all"]),
    default="named",
    show_default=True,
    help="Which Unix sockets of the host a program may connect to. named: those that config.json"
    " mounts by themselves (`-v /run/some.sock:/run/some.sock` of an engine), and none that lies in"
    " a folder. Descriptors are not passed on. none: not these either. open: those in mounted"
    " folders, too. create: none, but those that a program makes in mounted folders can be"
    " connected to from the host. all: open and create.",
)
@click.option(
    "--host-fifo",
    type=click.Choice(["none", "open"]),
    default="open",
    show_default=True,
    help="Which FIFOs of the host a program may open. open: those that config.json mounts by"
    " themselves, and none that lies in a folder. none: not these either; behind their names is a"
    " pipe of the sandbox.",
)
@click.option(
    "--overlay2",
    default="none",
    metavar="WHERE",
    show_default=True,
    help="Where it goes what the program writes to its root file system. none: into the files of"
    " the host, where it is kept. root:memory: into memory, it is gone with the container."
    " root:self, root:dir=PATH: into a file without a name that lies in the root file system on the"
    " host, or in that folder; it is gone with the container, too. all:memory and so on: what it"
    " writes to bind mounts, too. With ,size=SIZE no more than that.",
)
@click.option(
    "--file-access",
    type=click.Choice(["exclusive", "shared"]),
    default="exclusive",
    show_default=True,
    help="Who changes the root file system. exclusive: mostly this container. What others change is"
    " seen a moment later; names are on the host up to a second after the program has made them,"
    " also if the sandbox is killed. shared: others, too. Names are asked for, and are on the host"
    " at once; slower.",
)
@click.option(
    "--file-access-mounts",
    type=click.Choice(["shared", "exclusive"]),
    default="shared",
    show_default=True,
    help="Who changes the folders that are mounted. shared: the host and other sandboxes, too; what"
    " they do is seen at once. exclusive: mostly the container alone; of those that may be written"
    " to it remembers what it has seen, and sees what others do a moment later.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory of all programs of a container together: bytes, or with K, M, G. Default: half of"
    " the host's.",
)
@click.option(
    "--debug",
    is_flag=True,
    help="Say what is decided, and at the end which system calls, ioctls, socket options and"
    " files of /proc, /sys and /dev the program did not get.",
)
@click.option(
    "--debug-log",
    metavar="FILE",
    help="Where the processes of the sandbox write their messages. Default: where --log says.",
)
@click.option(
    "--strace", is_flag=True, help="Write the program's system calls to the log, as strace(1)."
)
@click.option(
    "--strace-syscalls",
    default="",
    metavar="LIST",
    help="Only these: names and families of strace(1), with commas, such as openat,%network."
    " Families: %file %desc %network %process %memory %signal %ipc. With ! before the list: all"
    " others. Means --strace, too.",
)
@click.option("--strace-log", metavar="FILE", help="Into a file of their own. Means --strace, too.")
@click.option(
    "--strace-log-size",
    type=click.IntRange(min=0, max=1 << 16),
    default=32,
    show_default=True,
    metavar="BYTES",
    help="How much is shown of what is read and written.",
)
@click.option(
    "--repl",
    is_flag=True,
    help="For who works on runsc: `runsc debug --repl` may run Python in the kernel of a sandbox"
    " that is started with this. It can change and break everything there.",
)
@click.option("--log", metavar="FILE", help="Where messages go. Default: standard error.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Their form.",
)
@click.option(
    "--system-calls",
    type=click.Choice(["auto", "mailbox", "exit", "inline"]),
    default="auto",
    show_default=True,
    help="For measurements: how a system call comes from the program to the kernel that answers"
    " it. auto chooses what is fastest on this machine.",
)
@click.option(
    "--systemd-cgroup",
    is_flag=True,
    help="Have systemd make the cgroup, as a scope: needs the extra runsc[systemd].",
)
@click.option(
    "--ignore-cgroups",
    is_flag=True,
    help="Make no cgroup on the host, whatever config.json says.",
)
@click.option(
    "--rootless",
    type=click.Choice(["true", "false", "auto"]),
    default="auto",
    help="For engines that pass it; no effect: what this user may not do is left out.",
)
@click.option(
    "--zygote",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="auto: where a zygote of this user listens (`runsc zygote`), the processes of a start are"
    " forks of it: that is faster, and they share memory. After a `run`, `restore` or `do` without"
    " --root that finds none, one begins. off: neither.",
)
@click.option("--criu", hidden=True, metavar="FILE")
@click.option("--TESTONLY-unsafe-nofilter", "no_filter", is_flag=True, hidden=True)
@click.option("--TESTONLY-steps", "steps_log", hidden=True, metavar="FILE")
@click.option("--TESTONLY-hold-at", "hold_at", type=int, default=0, hidden=True, metavar="N")
@click.option("--TESTONLY-trap", "trap", is_flag=True, hidden=True)
@click.pass_context
def main_group(ctx: click.Context, /, **flags: Any) -> None:
    """Run Linux programs that nobody trusts: each container has a kernel of its own.

    \b
    Try:
      runsc do sh -c 'uname -a; ps ax'       a program over your own files
      runsc do --python script.py            a Python script
      runsc do --network host curl https://example.org
      runsc --strace do ls                   which system calls it makes

    Flags of this page stand before the command, those of a command behind it. `runsc help COMMAND`
    tells about one.
    """
    ctx.obj = _globals(flags, ctx.invoked_subcommand or "")


def _globals(flags: dict[str, Any], command: str) -> Globals:
    """The flags as a value. Raises: click.BadParameter, RuntimeFailure, OSError."""
    from runsc import options  # noqa: PLC0415  not for --help

    try:
        return options.of(flags, command)
    except options.BadValue as error:
        raise click.BadParameter(str(error)) from None


def global_flags(words: Sequence[str]) -> Globals:
    """What global flags alone say, for who calls the runtime as a library. Raises: RuntimeFailure.

    As on the command line: those of others without an effect are taken.
    """
    while True:
        try:
            context = main_group.make_context("runsc", [*words, "create"])
            return _globals(context.params, "create")
        except click.NoSuchOption as error:
            try:
                _take(error, list(words))
            except click.ClickException as final:
                raise RuntimeFailure(final.format_message()) from None
        except click.ClickException as error:
            raise RuntimeFailure(error.format_message()) from None


def _explained(error: click.ClickException, args: list[str]) -> click.ClickException:
    """The same; of a global flag behind the command it says where it belongs."""
    context = getattr(error, "ctx", None)
    if not isinstance(error, click.NoSuchOption) or context is None or context.parent is None:
        return error
    flag = error.option_name
    known = next((p for p in main_group.params if flag in p.opts), None)
    if not isinstance(known, click.Option):
        return error if error.possibilities else _meant_before(error)
    value = ""
    if not (known.is_flag or known.is_eager):
        behind = args[args.index(context.info_name or "") + 1 :]
        words = [word for word in behind if word.split("=")[0] == flag]
        value = words[0][len(flag) :] if words and "=" in words[0] else "=..."
    return click.UsageError(
        f"{flag} is a global flag: put it before the command:"
        f" runsc {flag}{value} {context.info_name} ...",
        context,
    )


def _meant_before(error: click.NoSuchOption) -> click.ClickException:
    """The same, or a global flag that is written nearly so."""
    import difflib  # noqa: PLC0415  only for a mistake

    options = [each for each in main_group.params if isinstance(each, click.Option)]
    flags = [name for each in options if not each.hidden for name in each.opts]
    close = difflib.get_close_matches(error.option_name, flags, n=1)
    if not close:
        return error
    text = f"{error.message} Did you mean {close[0]}, which stands before the command?"
    return click.UsageError(text, error.ctx)


def _report_usage(error: click.ClickException) -> None:
    """A person sees what is wrong, and where help is; a client reads the log."""
    context = getattr(error, "ctx", None)
    found = context.find_root().obj if context is not None else None
    if found is not None and not found.log.to_stderr:
        found.log.write("error", error.format_message())
    if context is None or not sys.stderr.isatty():
        error.show()
        return
    click.echo(addressed("error", 2) + error.format_message(), err=True)
    click.echo(f"Try '{context.command_path} --help'.", err=True)


def _is_help(error: click.ClickException) -> bool:
    """Of a group alone, which is no mistake: as runc and docker do it."""
    return isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ()))  # click 8.2


def _code(error: click.ClickException) -> int:
    """Of wrong usage."""
    context = getattr(error, "ctx", None)
    return FAILED if context is not None and context.info_name == "do" else 1


def _take(error: click.NoSuchOption, args: list[str]) -> None:
    """A flag of runc's or gVisor's that has no effect here is one of the command's from now on.

    Raises: `error`, or what to use instead.
    """
    from runsc import foreign  # noqa: PLC0415  only for a mistake

    context = error.ctx
    assert context is not None
    name = "" if context.parent is None else context.info_name or ""
    flags = [error.option_name]
    if not error.option_name.startswith("--"):  # with one dash, which is a bundle of short ones
        behind = args[args.index(name) + 1 :] if name else args
        letter = error.option_name[1:]
        words = [word.partition("=")[0] for word in behind if word[:1] == "-" != word[1:2]]
        flags = [f"-{next((word for word in words if letter in word), '')}", error.option_name]
    have = {flag for parameter in context.command.params for flag in parameter.opts}
    flag = next((each for each in flags if each not in have and foreign.verdict(name, each)), "")
    found = foreign.verdict(name, flag)
    if found is None:
        raise error
    if isinstance(found, foreign.Refused):
        raise click.UsageError(f"{flag} has no place here: {found.instead}", context)
    context.command.params.append(_without_effect(flag, found))


def _without_effect(flag: str, found: Taken) -> click.Option:
    def check(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if found.values and value is not None and value not in found.values:
            raise click.UsageError(f"{flag}={value} has no place here: {found.why}", ctx)

    return click.Option(
        [flag], is_flag=found.switch, hidden=True, expose_value=False, callback=check
    )


def main(args: list[str] | None = None) -> None:
    """The console script. It ends, or forks, before a collection would pay."""
    gc.disable()
    if asked := os.environ.get("_RUNSC_COMPLETE"):
        from runsc.commands.completion import answer  # noqa: PLC0415  only for a shell

        sys.exit(answer(main_group, asked))
    args = sys.argv[1:] if args is None else args
    while True:
        try:
            _main(args)
        except click.NoSuchOption as error:
            try:
                _take(error, args)
            except click.ClickException as final:
                _report_usage(_explained(final, args))
                sys.exit(_code(final))


def _main(args: list[str]) -> NoReturn:
    """Raises: click.NoSuchOption, SystemExit."""
    begun: list[click.Context] = []

    def call() -> int:
        with main_group.make_context("runsc", list(args)) as context:
            begun.append(context)
            return main_group.invoke(context) or 0

    try:
        code = outcome(
            lambda: begun[0].invoked_subcommand or "" if begun else "",
            lambda: begun[0].obj.log if begun and begun[0].obj is not None else None,
            call,
        )
    except click.NoSuchOption:
        raise
    except click.ClickException as error:
        if _is_help(error):
            click.echo(error.format_message())
            sys.exit(0)
        _report_usage(_explained(error, args))
        code = _code(error)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code)
