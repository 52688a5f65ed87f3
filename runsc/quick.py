"""The command lines that engines give most, read without the framework of `cli`.

That costs more than what most of these commands do. A table says which flags there are, and only
command lines that are understood beyond doubt are taken; others (also --help, and whatever is
wrong) go to `cli`, which has the same flags and the messages. What the commands do, and how they
fail, is the same functions: `orders`, `executing`, `runsc.log.outcome`.
"""

from __future__ import annotations

from runsc import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


SWITCH, TEXT, TEXTS, NUMBER, NUMBERS = "switch", "text", "texts", "number", "numbers"
"""What a flag is: alone, or with a value; once (the last one counts) or again and again."""


class Flag:
    """One flag, which may have several spellings."""

    def __init__(self, key: str, kind: str, default: Any = None, **bounds: Any) -> None:
        self.key = key
        """What the commands call it; "": it means nothing here."""
        self.kind = kind
        self.default: Any = {SWITCH: False, TEXTS: (), NUMBERS: ()}.get(kind, default)
        self.words: tuple[str, ...] | None = bounds.get("words")
        """The values that there are."""
        self.least: int | None = bounds.get("least")
        self.most: int | None = bounds.get("most")

    def read(self, word: str) -> Any:
        """A value. Raises: Doubt."""
        if self.kind in (NUMBER, NUMBERS):
            return self._number(word)
        if self.words is not None and word not in self.words:
            raise Doubt
        return word

    def _number(self, word: str) -> int:
        if not (word.isascii() and word.isdigit() and len(word) < 19):
            raise Doubt
        number = int(word)
        if number < (self.least or 0) or (self.most is not None and number > self.most):
            raise Doubt
        return number


class Form:
    """How a command is used."""

    def __init__(self, flags: dict[str, Flag], *arguments: str, **more: Any) -> None:
        self.flags = flags
        self.arguments = arguments
        self.last: dict[str, Any] = more.get("last", {})
        """The last argument may be left out, and is this then."""
        self.rest: str = more.get("rest", "")
        """What all further words are together."""
        self.mixed: bool = more.get("mixed", True)
        """Flags may stand behind arguments."""


class Doubt(Exception):
    """Not for us."""


GLOBALS = {
    "--root": Flag("root", TEXT),
    "--platform": Flag("platform", TEXT, "kvm", words=("kvm", "unicorn")),
    "--network": Flag("network", TEXT, words=("none", "host", "sandbox")),
    "--egress": Flag("egress", TEXT),
    "--inject": Flag("inject", TEXT),
    "--pod-init-config": Flag("pod_init_config", TEXT),
    "--host-uds": Flag("host_uds", TEXT, "named", words=("none", "named", "open", "create", "all")),
    "--host-fifo": Flag("host_fifo", TEXT, "open", words=("none", "open")),
    "--overlay2": Flag("overlay2", TEXT, "none"),
    "--file-access": Flag("file_access", TEXT, "exclusive", words=("exclusive", "shared")),
    "--file-access-mounts": Flag(
        "file_access_mounts", TEXT, "shared", words=("shared", "exclusive")
    ),
    "--memory": Flag("memory", TEXT),
    "--debug": Flag("debug", SWITCH),
    "--debug-log": Flag("debug_log", TEXT),
    "--strace": Flag("strace", SWITCH),
    "--strace-syscalls": Flag("strace_syscalls", TEXT, ""),
    "--strace-log": Flag("strace_log", TEXT),
    "--strace-log-size": Flag("strace_log_size", NUMBER, 32, least=0, most=1 << 16),
    "--repl": Flag("repl", SWITCH),
    "--log": Flag("log", TEXT),
    "--log-format": Flag("log_format", TEXT, "text", words=("text", "json")),
    "--system-calls": Flag(
        "system_calls", TEXT, "auto", words=("auto", "mailbox", "exit", "inline")
    ),
    "--systemd-cgroup": Flag("systemd_cgroup", SWITCH),
    "--ignore-cgroups": Flag("ignore_cgroups", SWITCH),
    "--zygote": Flag("zygote", TEXT, "auto", words=("auto", "off")),
    "--criu": Flag("criu", TEXT),
    "--TESTONLY-unsafe-nofilter": Flag("no_filter", SWITCH),
    "--TESTONLY-steps": Flag("steps_log", TEXT),
    "--TESTONLY-hold-at": Flag("hold_at", NUMBER, 0),
    "--TESTONLY-trap": Flag("trap", SWITCH),
}
"""What stands before the command. --rootless is Go's or runc's: never beyond doubt."""
_BUNDLE = Flag("bundle", TEXT, ".")
BUNDLES = {
    "--bundle": _BUNDLE,
    "-b": _BUNDLE,
    "--console-socket": Flag("console_socket", TEXT),
    "--pid-file": Flag("pid_file", TEXT),
    "--preserve-fds": Flag("preserve_fds", NUMBER, 0, least=0),
    "--forkable": Flag("forkable", SWITCH),
    "--policy": Flag("policy", TEXT),
    "--no-pivot": Flag("", SWITCH),
    "--no-new-keyring": Flag("", SWITCH),
}
_ALL, _FORCE, _FORM = Flag("everyone", SWITCH), Flag("force", SWITCH), Flag("form", TEXT, "table")
_DETACH, _ENV, _TTY = Flag("detach", SWITCH), Flag("env", TEXTS), Flag("tty", SWITCH)
_USER, _GIDS, _CAPS = Flag("user", TEXT), Flag("additional_gids", NUMBERS), Flag("cap", TEXTS)
_PUBLISH = Flag("publish", TEXTS)
_PROCESS, _PID = Flag("process", TEXT), Flag("pid", NUMBER, least=1)
_STAYS = {"--detach": _DETACH, "-d": _DETACH, "--keep": Flag("keep", SWITCH)}
ID = "container_id"
COMMANDS = {
    "create": Form(BUNDLES, ID),
    "delete": Form({"--force": _FORCE, "-f": _FORCE}, ID),
    "exec": Form(
        {
            "--console-socket": Flag("console_socket", TEXT),
            "--cwd": Flag("cwd", TEXT),
            "--env": _ENV,
            "-e": _ENV,
            "--tty": _TTY,
            "-t": _TTY,
            "--user": _USER,
            "-u": _USER,
            "--additional-gids": _GIDS,
            "-g": _GIDS,
            "--process": _PROCESS,
            "-p": _PROCESS,
            "--detach": _DETACH,
            "-d": _DETACH,
            "--pid-file": Flag("pid_file", TEXT),
            "--no-new-privs": Flag("no_new_privs", SWITCH),
            "--cap": _CAPS,
            "-c": _CAPS,
            "--preserve-fds": Flag("preserve_fds", NUMBER, 0),
            "--ignore-paused": Flag("ignore_paused", SWITCH),
            "--process-label": Flag("", TEXT),
            "--apparmor": Flag("", TEXT),
            "--cgroup": Flag("", TEXT),
        },
        ID,
        rest="args",
        mixed=False,
    ),
    "kill": Form(
        {"--all": _ALL, "-a": _ALL, "--pid": _PID}, ID, "signal", last={"signal": "TERM"}
    ),
    "pause": Form({}, ID),
    "ps": Form({"--format": _FORM, "-f": _FORM}, ID, rest="options", mixed=False),
    "restore": Form(
        BUNDLES
        | _STAYS
        | {
            "--background": Flag("background", SWITCH),
            "--image-path": Flag("image_path", TEXT, "checkpoint"),
        },
        ID,
    ),
    "resume": Form({}, ID),
    "run": Form(
        BUNDLES
        | _STAYS
        | {"--publish": _PUBLISH, "-p": _PUBLISH, "--no-subreaper": Flag("", SWITCH)},
        ID,
    ),
    "start": Form({}, ID),
    "state": Form({}, ID),
    "wait": Form({"--pid": _PID, "--rootpid": Flag("rootpid", NUMBER, least=1)}, ID),
}


class Order:
    """A command line that is understood."""

    def __init__(self, command: str, flags: dict[str, Any], given: dict[str, Any]) -> None:
        self.command = command
        self.flags = flags
        """The global ones."""
        self.given = given
        """For the function of `orders`."""
        self._log: log.Log | None = None

    def carry_out(self) -> int | None:
        """The exit code; None if it is for `cli` after all: nothing has happened yet."""
        from runsc import options  # noqa: PLC0415

        def call() -> int:
            settings = options.of(self.flags, self.command)
            self._log = settings.log
            return _function(self.command)(settings, **self.given)

        try:
            return log.outcome(lambda: self.command, lambda: self._log, call)
        except options.BadValue:
            return None
        except KeyboardInterrupt:
            return 130


def _function(command: str) -> Callable[..., int]:
    if command == "exec":
        from runsc.executing import execute  # noqa: PLC0415

        return execute
    from runsc import orders  # noqa: PLC0415

    found: Callable[..., int] = getattr(orders, command)
    return found


def understood(args: list[str]) -> Order | None:
    """What a command line says; None if `cli` has to look at it."""
    words = iter(args)
    found = _leading(words)
    try:
        if found is not None:
            found.given |= _given(COMMANDS[found.command], words)
            return found
    except (Doubt, KeyError):
        pass
    return None


def leading(args: list[str]) -> Order | None:
    """The global flags and the name of the command alone; None if `cli` has to look at them."""
    return _leading(iter(args))


def _leading(words: Iterator[str]) -> Order | None:
    flags = _defaults(GLOBALS)
    try:
        for word in words:
            if word[:1] != "-":
                return Order(word, flags, {})
            _take(GLOBALS, flags, word, words)
    except (Doubt, KeyError):
        pass
    return None


def _given(form: Form, words: Iterator[str]) -> dict[str, Any]:
    """What is behind a command. Raises: Doubt, KeyError."""
    given = _defaults(form.flags)
    arguments: list[str] = []
    for word in words:
        if word[:1] == "-" and len(word) > 1:
            _take(form.flags, given, word, words)
            continue
        arguments.append(word)
        if not form.mixed:
            break
    given |= form.last | dict(zip(form.arguments, arguments, strict=False))
    if len(arguments) > len(form.arguments) or not given.keys() >= set(form.arguments):
        raise Doubt
    if form.rest:
        given[form.rest] = tuple(words)
    return given


def _defaults(flags: dict[str, Flag]) -> dict[str, Any]:
    return {flag.key: flag.default for flag in flags.values() if flag.key}


def _take(flags: dict[str, Flag], given: dict[str, Any], word: str, words: Iterator[str]) -> None:
    """A flag, and its value: in one word after "=" for a long one, else in the next.

    Raises: Doubt, KeyError.
    """
    name, equals, said = word.partition("=")
    flag = flags[name]
    if equals and (flag.kind == SWITCH or name[:2] != "--"):
        raise Doubt
    if flag.kind != SWITCH and not equals:
        said = next(words, "-")
        if said[:1] == "-":
            raise Doubt
    value = True if flag.kind == SWITCH else flag.read(said)
    if flag.key:
        several = flag.kind in (TEXTS, NUMBERS)
        given[flag.key] = (*given[flag.key], value) if several else value
