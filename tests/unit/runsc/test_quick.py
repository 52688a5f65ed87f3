"""The quick way to a command does what the command line does: the same flags, words and errors."""

from __future__ import annotations

import importlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from runsc import cli, foreign, quick
from runsc.containers import lifecycle
from runsc.containers.container import Store
from runsc.containers.execspec import Wishes, request
from runsc.containers.listener import listen
from runsc.containers.processes import start_time
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from sentry.abi.sched import SCHED_BATCH
from sentry.config import SchedulerConfig
from sentry.control.orders import ExecProcess
from sentry.control.protocol import Request, decode

NOT_QUICK = {"--help", "-h", "--version", "-v", "--rootless"}
"""Global flags that are left to the command line."""


def _click(name: str) -> click.Command:
    found = importlib.import_module(f"runsc.commands.{name.replace('-', '_')}").command
    assert isinstance(found, click.Command)
    return found


def _kind(option: click.Option) -> str:
    number = isinstance(option.type, (click.types.IntParamType, click.IntRange))
    if option.is_flag:
        return quick.SWITCH
    one, several = (quick.NUMBER, quick.NUMBERS) if number else (quick.TEXT, quick.TEXTS)
    return several if option.multiple else one


def _default(option: click.Option) -> object:
    if option.is_flag:
        return False
    if option.multiple:
        return ()
    default = option.to_info_dict()["default"]
    return default if isinstance(default, (str, int)) else None


def _check(command: str, flags: dict[str, quick.Flag], options: list[click.Parameter]) -> None:
    """Every flag of one is a flag of the other, and means the same."""
    known = {name: it for it in options if isinstance(it, click.Option) for name in it.opts}
    assert set(flags) == set(known) - NOT_QUICK - foreign.FLAGS.get(command, {}).keys()
    for name, flag in flags.items():
        option = known[name]
        assert flag.key == (option.name if option.expose_value else ""), name
        assert flag.kind == _kind(option), name
        words = tuple(option.type.choices) if isinstance(option.type, click.Choice) else None
        assert flag.words == words, name
        if flag.key:
            assert flag.default == _default(option), name
        if isinstance(option.type, click.IntRange):
            assert (flag.least, flag.most) == (option.type.min, option.type.max), name


def test_global_flags_are_those_of_the_command_line() -> None:
    _check(foreign.GLOBAL, quick.GLOBALS, cli.main_group.params)


@pytest.mark.parametrize("name", quick.COMMANDS)
def test_table_of_a_command_is_that_of_the_command_line(name: str) -> None:
    form, command = quick.COMMANDS[name], _click(name)
    arguments = [it for it in command.params if isinstance(it, click.Argument)]
    single = [it for it in arguments if it.nargs == 1]

    _check(name, form.flags, command.params)
    assert form.arguments == tuple(it.name for it in single)
    assert set(form.last) == {it.name for it in single if not it.required}
    assert [form.rest] * bool(form.rest) == [it.name for it in arguments if it.nargs == -1]
    assert form.mixed == command.context_settings.get("allow_interspersed_args", True)


COMMAND_LINES = [
    "create c",
    "create --bundle /b --pid-file=/p --console-socket /s --preserve-fds 2 c",
    "create -b /b c --no-pivot --no-new-keyring",
    "run --detach --keep --no-subreaper c",
    "run c -d",
    "start c",
    "kill c",
    "kill c KILL",
    "kill --all c 9",
    "kill c -a 9",
    "kill --pid 7 c TERM",
    "delete --force c",
    "delete c -f",
    "state c",
    "pause c",
    "resume c",
    "wait c",
    "wait --pid=3 c",
    "wait --rootpid 3 c",
    "ps c",
    "ps -f json c",
    "ps --format=json c -ef",
    "exec c true",
    "exec c sh -c exit --user x",
    "exec -t -d --console-socket /s --pid-file=/p c sh",
    "exec --detach --process /p.json c",
    "exec -e A=b --env=C=d -u 1:2 --cwd /x c env",
    "exec -g 1 --additional-gids=2 --cap CAP_KILL -c CAP_CHOWN c id",
    "exec --no-new-privs --ignore-paused --preserve-fds 2 c ls",
    "exec --tty -p f --apparmor x --process-label y --cgroup z c",
    "--root=/r --log /l --log-format json --debug state c",
    "--platform unicorn --network=sandbox --host-uds none --host-fifo=none --memory 1G state c",
    "--overlay2 none --strace --strace-syscalls %file --strace-log-size=5 --strace-log f state c",
    "--overlay2=none --file-access=shared state c",
    "--file-access-mounts=exclusive state c",
    "--debug-log d --system-calls exit --systemd-cgroup --ignore-cgroups --criu x state c",
    "--TESTONLY-unsafe-nofilter --TESTONLY-trap --TESTONLY-steps f state c",
]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_words_mean_what_they_mean_to_the_command_line(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    words = line.split()
    order = quick.understood(words)
    assert order is not None
    monkeypatch.setattr(cli, "_globals", lambda flags, _: seen.update(flags))
    with cli.main_group.make_context("runsc", list(words)) as context:
        cli.main_group.callback and context.invoke(cli.main_group.callback, **context.params)
        rest = [*context._protected_args, *context.args]
        name, command, behind = cli.main_group.resolve_command(context, rest)
    assert command is not None and name is not None
    given = command.make_context(name, behind, parent=context).params

    assert (order.command, order.flags) == (name, {k: seen[k] for k in order.flags})
    assert seen.keys() - order.flags.keys() <= {"rootless"}
    assert {k: v if v != [] else () for k, v in order.given.items()} == given


@pytest.mark.parametrize(
    "line",
    [
        "", "c", "list", "do state", "--root exec c x", "--log-format=xml exec c x",
        "--platform=other exec c x", "--debug=true state c", "-root=/r state c",
        "--unknown state c", "--rootless=true state c", "--strace-log-size=-1 state c",
        "--strace-log-size 99999 state c",
        "exec", "exec --help", "exec -td c x", "exec -eA=b c x", "exec --user -u c",
        "exec --bogus c x", "exec --preserve-fds x c y", "exec -- c x", "state", "state c d",
        "state --help", "kill", "kill c KILL d", "kill --pid 0 c", "kill c -9", "delete --force",
        "ps", "ps --help", "start c --bogus", "create --preserve-fds=-1 c", "-h", "--version",
    ],
)  # fmt: skip
def test_what_is_odd_is_left_to_the_command_line(line: str) -> None:
    assert quick.understood(line.split()) is None


def test_wrong_values_are_left_to_the_command_line() -> None:
    for line in ("--overlay2=x state c", "--strace-syscalls=nonsense state c"):
        order = quick.understood(line.split())
        assert order is not None and order.carry_out() is None


class Result(NamedTuple):
    """What a caller sees of a command."""

    code: int
    out: str
    err: str
    log: str
    files: list[str]
    state: str


class Place:
    """A state root with a container "c", whose sandbox is not ours."""

    def __init__(self, folder: Path, child: int) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._child = child

    def make(self, **fields: object) -> None:
        """As it is before the command."""
        values: dict[str, object] = {
            "pid": self._child, "pid_start": start_time(self._child), "phase": "running",
        }  # fmt: skip
        made = State(oci_version="1.2.0", id="c", bundle="/bündel", **(values | fields))  # type: ignore[arg-type]
        store = Store(str(self.root))
        store.create(made)
        made.created = "2026-01-01T00:00:00Z"
        store.save(made)

    def serve(self, answer: bytes | None) -> Callable[[], None]:
        """A sandbox that says this to whatever it is asked; None: nothing at all. How it ends."""
        listener = listen(str(self.root / "c" / "control.sock"))
        listener.setblocking(True)
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    sock = listener.accept()[0]
                    while b"\n" not in sock.recv(1 << 16):
                        pass
                    if answer is None:
                        signal.pause()
                    sock.sendall(answer or b"")
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(1 << 16):  # closed with something unread, it would be reset
                        pass
                    sock.close()
            finally:
                os._exit(0)
        listener.close()

        def end() -> None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

        return end

    def result(self, call: Callable[[list[str]], int | None], args: list[str]) -> Result:
        """Of a fork of this process that does it."""
        out, err = self.folder / "out", self.folder / "err"
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                for number, path in ((1, out), (2, err)):
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                    os.dup2(fd, number)
                sys.stdout = os.fdopen(1, "w")
                sys.stderr = os.fdopen(2, "w")
                found = call(args)
                assert found is not None
                code = found
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log = self.folder / "log"
        state = self.root / "c" / "state.json"
        return Result(
            code,
            re.sub(rf"\b{self._child}\b", "PID", out.read_text()),
            self._plain(err.read_text()),
            self._plain(log.read_text()) if log.exists() else "",
            sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*")),
            re.sub(r'"(pid\w*)":\d+', r'"\1":N', state.read_text()) if state.exists() else "",
        )

    def _plain(self, text: str) -> str:
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text).replace(
            str(self.folder), "FOLDER"
        )


def _quickly(args: list[str]) -> int | None:
    order = quick.understood(args)
    return order.carry_out() if order is not None else None


def _with_click(args: list[str]) -> int | None:
    try:
        cli.main(args)
    except SystemExit as end:
        return int(end.code or 0)
    return None


@pytest.fixture
def child() -> Iterator[Callable[[], int]]:
    """Makes a process that the container seems to be."""
    made: list[subprocess.Popen[bytes]] = []

    def another() -> int:
        made.append(subprocess.Popen(["sleep", "1000"]))
        return made[-1].pid

    yield another
    for each in made:
        each.kill()
        each.wait()


GOOD, BAD = b"{}\n", b'{"error":"no such process"}\n'
CREATED, PAUSED = {"phase": "created"}, {"paused": True}
STOPPED, ODD = {"pid_start": 1}, {"annotations": {"a": "b", "ü": "\n\x7f"}, "rootfs": "/r"}
ALL = ("state c", "start c", "kill c", "kill --all c KILL", "delete c", "delete --force c",
       "pause c", "resume c", "ps c", "ps -f json c", "wait c", "exec c true")  # fmt: skip
CASES: list[tuple[str, dict[str, object] | None, bytes | str | None]] = [
    *((line, None, "none") for line in ALL),
    *((line, STOPPED, "none") for line in ALL),
    *((line, {}, "none") for line in ALL if "--force" not in line and "KILL" not in line),
    *((line, {}, BAD) for line in ("kill c", "pause c", "ps c", "wait c", "exec c true")),
    *((line, {}, b"") for line in ("kill c", "pause c", "ps c", "wait c", "exec c true")),
    *((line, {}, b"odd\n") for line in ("kill c", "pause c", "ps c", "wait c")),
    *((line, {}, None) for line in ("kill c", "pause c", "ps c")),
    *((line, CREATED, GOOD) for line in ("start c", "state c", "pause c", "kill c 0")),
    *((line, CREATED, BAD) for line in ("start c",)),
    *((line, CREATED, None) for line in ("start c",)),
    *((line, PAUSED, GOOD) for line in ("resume c", "state c", "delete c", "start c")),
    ("pause c", {}, GOOD),
    ("kill c HUP", {}, GOOD),
    ("kill c sigkill", {}, GOOD),
    ("kill c SIG_DFL", {}, GOOD),
    ("kill c 65", {}, GOOD),
    ("kill --all --pid 3 c", {}, GOOD),
    ("kill a/b", {}, GOOD),
    ("wait c", {}, b'{"wait_status":9}\n'),
    ("wait --pid 3 --rootpid 4 c", {}, GOOD),
    ("ps c", {}, b'{"processes":[{"pid":7,"ppid":1,"uid":5,"command":"a\\u0007b"}]}\n'),
    ("ps c -x", {}, GOOD),
    ("ps -f xml c", {}, GOOD),
    ("state c", ODD, "none"),
    ("state c", {"phase": "creating"}, "none"),
    ("exec c", {}, GOOD),
    ("exec --cwd x c true", {}, GOOD),
    ("exec --preserve-fds 900 c true", {}, GOOD),
    ("exec -u root c true", {}, GOOD),
    ("create --bundle /nowhere c2", {}, "none"),
    ("create a/b", {}, "none"),
    ("run --bundle /nowhere c2", {}, "none"),
]


@pytest.mark.parametrize("form", ["", "--log LOG", "--log LOG --log-format json --debug"])
@pytest.mark.parametrize(("line", "fields", "answer"), CASES)
def test_both_ways_do_the_same(
    line: str,
    fields: dict[str, object] | None,
    answer: bytes | str | None,
    form: str,
    tmp_path: Path,
    child: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "KILL_ANSWER_S", 0.05)
    if answer is None:
        monkeypatch.setattr(lifecycle.tell, "__defaults__", (0.05,))
        monkeypatch.setattr(lifecycle.ask, "__defaults__", (0.05, ()))
    results = []
    for name, way in (("quick", _quickly), ("click", _with_click)):
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name, child())
        words = [f"--root={place.root}", *form.replace("LOG", f"{place.folder}/log").split()]
        place.root.mkdir(mode=0o700)
        if fields is not None:
            place.make(**fields)
        end = place.serve(answer) if not isinstance(answer, str) else None
        try:
            results.append(place.result(way, [*words, *line.split()]))
        finally:
            if end is not None:
                end()

    assert results[0] == results[1]
    assert results[0].code != 99


@pytest.mark.parametrize("line", ["state c", "kill c", "start c", "delete c", "wait c"])
@pytest.mark.parametrize("fault", ["text", "type", "missing", "open to all", "no folder", "log"])
def test_both_ways_say_the_same_of_a_root_that_is_odd(
    line: str, fault: str, tmp_path: Path, child: Callable[[], int]
) -> None:
    results = []
    for name, way in (("quick", _quickly), ("click", _with_click)):
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name, child())
        place.make()
        file = place.root / "c" / "state.json"
        words = [f"--root={place.root}"]
        match fault:
            case "text":
                file.write_text("nonsense")
            case "type":
                file.write_text(file.read_text().replace('"running"', "5"))
            case "missing":
                file.write_text('{"id":"c"}')
            case "open to all":
                place.root.chmod(0o777)
            case "no folder":
                words = [f"--root={file}"]
            case "log":
                words += ["--log=/nowhere/log"]
        results.append(place.result(way, [*words, *line.split()]))

    assert results[0] == results[1]
    assert results[0].code == 1 and results[0].err


def test_killed_hangs_and_is_killed_by_the_host_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "KILL_ANSWER_S", 0.05)
    for name, way in (("quick", _quickly), ("click", _with_click)):
        (tmp_path / name).mkdir()
        with subprocess.Popen(["sleep", "1000"]) as victim:
            place = Place(tmp_path / name, victim.pid)
            place.make()
            end = place.serve(None)
            try:
                args = [f"--root={place.root}", "kill", "c", "KILL"]
                assert place.result(way, args)[:3] == (0, "", "")
                assert victim.wait() == -signal.SIGKILL
            finally:
                end()


def _nothing(text: str) -> None:
    raise AssertionError(text)


def test_request_written_by_hand_is_one_of_the_protocol() -> None:
    wishes = Wishes(
        "c",
        ["echo", "\udcff é\n"],
        env=["A=b"],
        cwd="/x",
        user="1:2",
        additional_gids=[3, 4],
        cap=["CAP_CHOWN"],
        no_new_privs=True,
        tty=True,
        ignore_paused=True,
    )
    data, terminal, size = request(wishes, _nothing)

    assert (terminal, size) == (True, None)
    assert decode(data, Request) == Request(
        "exec",
        process=ExecProcess(
            args=(b"echo", b"\xff \xc3\xa9\n"),
            extra_env=(b"A=b",),
            cwd=b"/x",
            uid=1,
            gid=2,
            extra_gids=(3, 4),
            extra_capabilities=1,
            no_new_privileges=True,
            terminal=True,
            ignore_paused=True,
        ),
    )
    plain, _, _ = request(Wishes("c", ["x"]), _nothing)
    assert decode(plain, Request) == Request("exec", process=ExecProcess((b"x",)))


def test_process_of_a_file_has_its_scheduler_and_its_priority_of_io() -> None:
    document = (
        b'{"args":["x"],"cwd":"/","scheduler":{"policy":"SCHED_BATCH","nice":3},'
        b'"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":1}}'
    )
    process = decode(request(Wishes("c", [], process=document), _nothing)[0], Request).process

    assert process is not None
    assert process.scheduler == SchedulerConfig(SCHED_BATCH, 3)
    assert process.io_priority == 2 << 13 | 1


@pytest.mark.parametrize("text", ["4294967295", "1:4294967295", "9" * 5000])
def test_user_that_there_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(RuntimeFailure, match="failed"):
        request(Wishes("c", ["x"], user=text), _nothing)
    with pytest.raises(RuntimeFailure, match="positive number"):
        request(Wishes("c", ["x"], additional_gids=[(1 << 32) - 1]), _nothing)
