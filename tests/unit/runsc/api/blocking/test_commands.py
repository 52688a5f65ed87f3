"""Commands, as a program without asyncio has them, over a stand-in that runs what the host has."""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runsc.api.blocking.commands import CommandHandle, Commands
from runsc.api.blocking.pty import Pty
from runsc.api.blocking.streams import PIECE, Sink, Stream
from runsc.api.blocking.watching import nothing
from runsc.api.errors import CommandNotStarted, SandboxEnded, SandboxError
from runsc.api.limits import MemoryLimitExceeded, OutputLimitExceeded, TimeLimitExceeded
from runsc.api.values import OUTPUT, CommandFailed, Limits, Size
from sentry.config import JobLimits
from sentry.control.execution import PAUSED, STOPPED
from sentry.control.protocol import MAX_LINE, Event, Reply, encode
from tests.patience import TIMEOUT_S
from tests.unit.runsc.api.standin import StandIn, standing_in

MUCH = 10 << 20


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[StandIn]:
    with standing_in(tmp_path) as made:
        yield made


@pytest.fixture
def commands(sandbox: StandIn) -> Commands:
    return Commands(sandbox.path, None)


def descriptors() -> int:
    gc.collect()  # what other tests have left
    return len(os.listdir("/proc/self/fd"))


def test_a_command_runs_to_its_end(commands: Commands) -> None:
    result = commands.run("echo out; echo err >&2; exit 3")

    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert (result.usage.user, result.usage.cpu, result.usage.written) == (1.0, 1.5, 7)
    assert result.usage.wall > 0
    with pytest.raises(CommandFailed, match="exit code 3: err"):
        result.check()
    assert commands.run(["true"]).check().exit_code == 0
    assert commands.run("kill -TERM $$").signal == signal.SIGTERM


def test_an_end_that_comes_with_the_start_is_heard(sandbox: StandIn, commands: Commands) -> None:
    sandbox.says = encode(Reply(pid=1)) + encode(Event("exited", status=5 << 8))
    assert commands.run("exit 5").exit_code == 5


def test_what_is_asked_for_is_what_is_told(sandbox: StandIn, commands: Commands) -> None:
    limits = Limits(cpu=0.5, memory=5, processes=6, written=7, egress=8)
    commands.run(["true"], timeout=2, cwd="/tmp", env={"A": "b"}, user="7:8", limits=limits)

    process = sandbox.requests[0].process
    assert process is not None
    assert (process.cwd, process.extra_env) == (b"/tmp", (b"A=b",))
    assert (process.uid, process.gid, process.additional_gids) == (7, 8, ())
    assert process.job == JobLimits(2 * 10**9, 5 * 10**8, 5, 6, 7, 8)


def test_a_time_of_years_is_waited_for_as_any(commands: Commands) -> None:
    """poll(2) counts 24 days at most."""
    assert commands.run(["true"], timeout=1e8).check().exit_code == 0


def test_input_is_written_while_output_is_read(commands: Commands) -> None:
    data = os.urandom(MUCH)

    assert commands.run(["cat"], stdin=data).stdout_bytes == data
    assert commands.run("wc -c", stdin="four").stdout.strip() == "4"
    assert commands.run("wc -c", stdin=iter([b"a", b"", b"bc"])).stdout.strip() == "3"
    assert commands.run("wc -c", stdin=bytearray(5)).stdout.strip() == "5"
    assert commands.run(["cat"]).stdout == ""
    assert commands.run(["true"], stdin=data).exit_code == 0


def test_input_may_be_closed_before_all_of_it_is_written(commands: Commands) -> None:
    with commands.run("wc -c", stdin=bytes(MUCH), background=True) as handle:
        handle.close_stdin()
        assert handle.wait().stdout.strip() == "0"


def test_a_command_that_does_not_read_is_no_sigpipe_for_its_caller() -> None:
    """Who has the host's default for that signal would die of it."""
    out, into = os.pipe()
    os.close(out)
    sink = Sink(into)
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            sink.give(b"x")
        except BrokenPipeError:
            code = bool(signal.sigpending() or signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        finally:
            os._exit(code)
    sink.close()
    assert os.waitpid(child, 0) == (child, 0)


def test_text_is_heard_as_it_comes(commands: Commands) -> None:
    out: list[str] = []
    err: list[str] = []
    result = commands.run(
        r"printf 'a\303'; sleep 0.1; printf '\244b'; printf '\377' >&2",
        on_stdout=out.append,
        on_stderr=err.append,
    )

    assert ("".join(out), "".join(err)) == ("aäb", "�")
    assert (result.stdout, result.stderr) == ("", "")


def test_a_handle_writes_reads_and_waits(commands: Commands) -> None:
    with commands.run("while read n; do echo $((n * n)); done", background=True) as handle:
        lines = handle.stdout.lines()
        for number in range(5):
            handle.send_stdin(f"{number}\n")
            assert next(lines) == str(number * number)
        handle.close_stdin()
        assert handle.wait().exit_code == 0
        assert list(lines) == []
        assert handle.wait().exit_code == 0
        with pytest.raises(BrokenPipeError):
            handle.send_stdin("more")


def test_a_line_that_comes_in_pieces_has_whole_characters(tmp_path: Path) -> None:
    whole = "ä" * PIECE, "b", "x" + "€" * PIECE
    (tmp_path / "file").write_bytes("\n".join(whole).encode() + b"\xe2\x82")
    stream = Stream(os.open(tmp_path / "file", os.O_RDONLY), nothing)

    found = list(stream.lines())
    assert len(found) > len(whole)
    assert "".join(found) == "".join(whole) + "\ufffd"


def test_a_handle_kills_by_any_signal(commands: Commands) -> None:
    handle = commands.run("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done",
                          background=True)  # fmt: skip
    assert next(iter(handle.stdout)) == b"ready\n"
    handle.kill(signal.SIGTERM)
    assert handle.wait().exit_code == 5
    handle.kill()

    handle = commands.run(["sleep", "1000"], background=True)
    handle.kill()
    assert handle.wait().exit_code == 128 + signal.SIGKILL


def test_who_does_not_read_stops_the_program(commands: Commands) -> None:
    with commands.run(["yes"], background=True) as handle:
        stream = iter(handle.stdout)
        first = next(stream)
        assert set(first) == set(b"y\n")
        assert len(first) <= 2 << 20
        handle.kill()
        handle.wait()


def test_a_handle_that_is_closed_ends_the_command(commands: Commands) -> None:
    handle = commands.run(["sleep", "1000"], background=True)
    pidfd = os.pidfd_open(handle.pid)
    handle.close()
    handle.close()

    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)


def test_a_thread_that_waits_for_a_handle_that_is_closed_goes_on(commands: Commands) -> None:
    said: list[str] = []
    handle = commands.run("echo begun; exec sleep 1000", background=True)
    assert next(handle.stdout) == b"begun\n"

    def wait() -> None:
        try:
            handle.wait()
        except SandboxEnded as error:
            said.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)  # most likely it waits by now; it is right as well if it does not
    handle.close()
    thread.join(TIMEOUT_S)

    assert said in (["the command was ended"], ["the sandbox has ended"])


def test_what_another_thread_closes_before_one_waits_is_over() -> None:
    out, into = os.pipe()

    class Closed(Stream):
        """One that is closed behind a look at it."""

        def take(self, size: int = PIECE) -> bytes | None:
            if self.fileno() < 0:
                return b""
            self.close()
            return None

    assert Closed(out, nothing).read() == b""
    os.close(into)


def test_output_beyond_the_limit_ends_the_command(commands: Commands) -> None:
    with pytest.raises(OutputLimitExceeded) as raised:
        commands.run(["yes"], limits=Limits(output=1000))
    assert raised.value.limit == 1000
    assert raised.value.used > 1000
    assert raised.value.result.stdout_bytes == b"y\n" * 500
    assert raised.value.result.exit_code == 137

    with pytest.raises(OutputLimitExceeded) as raised:
        commands.run(["yes"])
    assert raised.value.limit == OUTPUT
    assert len(raised.value.result.stdout_bytes) == OUTPUT

    handle = commands.run(["yes"], background=True, limits=Limits(output=1 << 16))
    assert sum(map(len, handle.stdout)) >= 1 << 16
    with pytest.raises(OutputLimitExceeded):
        handle.wait()
    handle.close()


@pytest.mark.parametrize(
    ("name", "kind", "limit", "used"),
    [("wall", TimeLimitExceeded, 2, None), ("memory", MemoryLimitExceeded, 9, 1 << 20)],
)
def test_a_limit_that_the_sandbox_tells_is_raised(
    sandbox: StandIn, commands: Commands, name: str, kind: type[MemoryLimitExceeded], limit: int,
    used: int | None,
) -> None:  # fmt: skip
    sandbox.exceeded = name
    with pytest.raises(kind) as raised:
        commands.run("echo before", timeout=2, limits=Limits(memory=9))

    assert raised.value.limit == limit
    assert used is None or raised.value.used == used
    assert raised.value.result.stdout == "before\n"
    assert isinstance(raised.value, TimeoutError) is (kind is TimeLimitExceeded)


def test_what_cannot_be_started_says_why(commands: Commands, tmp_path: Path) -> None:
    with pytest.raises(CommandNotStarted, match="No such file"):
        commands.run(["/nowhere"])
    with pytest.raises(ValueError, match="begin with /"):
        commands.run("true", cwd="tmp")
    with pytest.raises(ValueError, match="no command"):
        commands.run([])
    with pytest.raises(SandboxEnded):
        Commands(str(tmp_path / "none" / "control.sock"), None).run("true")
    with pytest.raises(SandboxEnded):
        Commands(str(tmp_path / "none.sock"), None).run("true")


@pytest.mark.parametrize(
    ("said", "kind"),
    [(PAUSED, SandboxError), (STOPPED, SandboxEnded), ("no such file", CommandNotStarted)],
)
def test_why_a_command_does_not_start_has_a_kind(
    sandbox: StandIn, commands: Commands, said: str, kind: type[Exception]
) -> None:
    sandbox.says = encode(Reply(error=said))
    with pytest.raises(SandboxError) as raised:
        commands.run("true")
    assert raised.type is kind
    assert "--ignore-paused" not in str(raised.value)


@pytest.mark.parametrize("said", [b"", b"{}"])
def test_a_sandbox_that_ends_is_an_error(
    sandbox: StandIn, commands: Commands, said: bytes
) -> None:
    sandbox.says = said
    with pytest.raises(SandboxEnded):
        commands.run("true")


@pytest.mark.parametrize("said", [b"[]\n", b'{"pid": "x"}\n', b"x" * (5 << 20)])
def test_a_sandbox_that_says_nonsense_is_an_error(
    sandbox: StandIn, commands: Commands, said: bytes
) -> None:
    sandbox.says = said
    with pytest.raises(SandboxError):
        commands.run("true")


def test_what_no_sandbox_would_take_is_an_error_of_the_caller(
    sandbox: StandIn, commands: Commands
) -> None:
    before = descriptors()
    for limits in (Limits(memory=1.5), Limits(processes=1 << 63)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"`int`.*process\.job"):
            commands.run("true", limits=limits)
    with pytest.raises(ValueError, match="bytes are asked with"):
        commands.run("echo " + "x" * MAX_LINE)
    sandbox.settle()

    assert sandbox.requests == []
    assert descriptors() == before


def test_nothing_stays_open(sandbox: StandIn, commands: Commands) -> None:
    commands.run("true")
    sandbox.settle()
    before = descriptors()
    for _ in range(5):
        commands.run("echo x", stdin="y")
        with pytest.raises(CommandNotStarted):
            commands.run(["/nowhere"])
        commands.run(["sleep", "1000"], background=True).close()
    sandbox.settle()

    assert descriptors() == before


def test_a_want_of_descriptors_leaves_none_open(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    tried: list[Callable[[], object]] = [
        lambda: Commands(path, None).run("true", stdin=""),
        lambda: Commands(path, None).connect(1),
        lambda: Pty(path, None).create("true"),
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors()
    first_free = os.open(os.devnull, os.O_RDONLY)
    os.close(first_free)
    try:
        for use in tried:
            ends: list[type[BaseException]] = []
            while SandboxEnded not in ends:
                more = len(ends)  # descriptors above the first free one may be open already
                resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + more, hard))
                with pytest.raises((OSError, SandboxEnded)) as raised:
                    use()
                ends.append(raised.type)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert descriptors() == before, more
            assert {OSError, SandboxEnded} == set(ends)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("size", [Size(-1, 80), Size(24, 1 << 16)])
def test_a_size_that_no_terminal_has_is_an_error_of_the_caller(
    sandbox: StandIn, size: Size
) -> None:
    before = descriptors()
    with pytest.raises(ValueError, match=f"{size.rows} rows and {size.cols} columns"):
        Pty(sandbox.path, None).create("true", size=size)
    assert sandbox.requests == []
    assert descriptors() == before


def test_threads_read_write_and_wait_at_once(commands: Commands) -> None:
    handle = commands.run(["cat"], background=True)
    stream = iter(handle.stdout)
    found: list[int] = []

    def read() -> None:
        found.append(sum(map(len, stream)))

    reader = threading.Thread(target=read)
    waiter = threading.Thread(target=wait_for, args=(handle,))
    reader.start()
    waiter.start()
    for _ in range(20):
        handle.send_stdin(bytes(1 << 18))
    handle.close_stdin()
    reader.join()
    waiter.join()

    assert found == [20 << 18]
    handle.close()


def wait_for(handle: CommandHandle) -> None:
    handle.wait()
