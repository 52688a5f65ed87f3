from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from runsc.errors import RuntimeFailure, SpecError
from runsc.oci import hooks
from runsc.oci.hooks import Phase, StateDocument
from runsc.oci.spec import Hook, Hooks


def _state(bundle: Path) -> StateDocument:
    return StateDocument("1.2.0", "c1", "creating", str(bundle), 42, {"a": "b"})


def _shell(script: str, **more: object) -> Hook:
    return msgspec.structs.replace(Hook("/bin/sh", ["sh", "-c", script]), **more)


def test_run_gives_state_environment_and_directory(tmp_path: Path) -> None:
    script = "cat > state; env > env; pwd > pwd; echo $0 > name"
    hook = Hook("/bin/sh", ["zero", "-c", script], ["A=1", "A=b=c"])

    hooks.run(Hooks(prestart=[hook]), Phase.PRESTART, _state(tmp_path))

    assert msgspec.json.decode((tmp_path / "state").read_bytes()) == {
        "ociVersion": "1.2.0",
        "id": "c1",
        "status": "creating",
        "pid": 42,
        "bundle": str(tmp_path),
        "annotations": {"a": "b"},
    }
    lines = (tmp_path / "env").read_text().split()
    assert [line for line in lines if not line.startswith(("PWD=", "_=", "SHLVL="))] == ["A=b=c"]
    assert (tmp_path / "pwd").read_text().strip() == str(tmp_path)
    assert (tmp_path / "name").read_text().strip() == "zero"


def test_run_in_order_and_stop_at_the_first_failure(tmp_path: Path) -> None:
    made = Hooks(
        create_runtime=[
            _shell("echo 0 >> log"),
            _shell("echo 1 >> log; echo out; echo err >&2; exit 3"),
            _shell("echo 2 >> log"),
        ]
    )

    with pytest.raises(RuntimeFailure) as info:
        hooks.run(made, Phase.CREATE_RUNTIME, _state(tmp_path))

    expected = "error running createRuntime hook #1: exit status 3, stdout: out\n, stderr: err\n"
    assert str(info.value) == expected
    assert (tmp_path / "log").read_text() == "0\n1\n"


def test_run_all_goes_on_and_warns(tmp_path: Path) -> None:
    warnings: list[str] = []
    made = Hooks(poststop=[_shell("exit 1"), _shell("touch second")])

    hooks.run_all(made, Phase.POSTSTOP, _state(tmp_path), warnings.append)

    assert warnings == ["error running poststop hook #0: exit status 1, stdout: , stderr: "]
    assert (tmp_path / "second").exists()


def test_timeout_ends_the_hook_and_what_it_started(tmp_path: Path) -> None:
    made = Hooks(prestart=[_shell("echo $$ > pid; sleep 1000 & wait", timeout=1)])

    with pytest.raises(RuntimeFailure, match=r"hook ran past specified timeout of 1\.0s"):
        hooks.run(made, Phase.PRESTART, _state(tmp_path))

    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}")


def test_output_that_has_no_end_is_read_once_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    written = iter([b"some", b"more"])
    monkeypatch.setattr(os, "read", lambda *_: next(written))
    kept = bytearray()

    assert hooks._read(0, kept)
    assert kept == b"some"


def test_timeout_may_be_of_any_length(tmp_path: Path) -> None:
    for timeout in (3_000_000, (1 << 63) - 1):  # seconds, of which poll(2) takes less
        hooks.run(
            Hooks(prestart=[_shell("exit 0", timeout=timeout)]), Phase.PRESTART, _state(tmp_path)
        )


def test_hook_is_killed_at_the_end_of_whom_it_ends_with(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as container:
        pidfd = os.pidfd_open(container.pid)
        hook = _shell(f"echo $$ >pid; kill -9 {container.pid}; exec sleep 1000")

        hooks.run(
            Hooks(prestart=[hook, _shell("touch later")]), Phase.PRESTART, _state(tmp_path),
            hooks.Place(ends_with=pidfd),
        )  # fmt: skip

        os.close(pidfd)
    assert not (tmp_path / "later").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_hook_is_killed_and_reaped_when_a_signal_ends_who_runs_it(tmp_path: Path) -> None:
    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    runner = os.fork()  # of one thread, as whoever runs hooks: no other one takes the signal
    if not runner:
        try:
            signal.signal(signal.SIGUSR1, end)
            hook = _shell("echo $$ >pid; kill -USR1 $PPID; sleep 1000 & wait")
            hooks.run_one(hook, _state(tmp_path))
        except SystemExit as error:
            with suppress(ProcessLookupError):
                os.kill(int((tmp_path / "pid").read_text()), 0)
                os._exit(1)
            os._exit(int(str(error.code)))
        finally:
            os._exit(2)
    _, status = os.waitpid(runner, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGUSR1


def test_hook_that_is_tied_ends_with_who_runs_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    pid = os.fork()
    if not pid:
        try:
            hook = _shell(f"exec >{told}; echo; exec sleep 1000")
            hooks.run_one(hook, _state(tmp_path), hooks.Place(tie=signal.SIGKILL))
        finally:
            os._exit(0)
    with told.open() as file:
        assert file.readline() == "\n"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert file.read() == ""  # nobody has the other end


def test_daemon_that_keeps_the_output_does_not_hold_up(tmp_path: Path) -> None:
    made = Hooks(prestart=[_shell("sleep 1000 & echo $! > pid")])

    hooks.run(made, Phase.PRESTART, _state(tmp_path))

    os.kill(int((tmp_path / "pid").read_text()), 9)


@pytest.mark.parametrize(
    ("hook", "problem"),
    [
        (_shell("kill -9 $$"), "signal: killed, stdout: , stderr: "),
        (Hook("/nonexistent"), "fork/exec /nonexistent: no such file or directory"),
        (Hook("/etc/hostname"), "fork/exec /etc/hostname: permission denied"),
    ],
)
def test_failures_have_the_words_of_runc(tmp_path: Path, hook: Hook, problem: str) -> None:
    with pytest.raises(RuntimeFailure) as info:
        hooks.run(Hooks(prestart=[hook]), Phase.PRESTART, _state(tmp_path))

    assert str(info.value) == f"error running prestart hook #0: {problem}"


def test_much_output_and_unread_input_do_not_block(tmp_path: Path) -> None:
    state = StateDocument("1.2.0", "c", "creating", str(tmp_path), 1, {"a": "x" * 300_000})
    made = Hooks(prestart=[_shell("head -c 1000000 /dev/zero; exit 1")])

    with pytest.raises(RuntimeFailure) as info:
        hooks.run(made, Phase.PRESTART, state)

    assert 60_000 < len(str(info.value)) < 70_000


def test_check_refuses_what_cannot_be_run(tmp_path: Path) -> None:
    warnings: list[str] = []
    for hook, where in (
        (Hook("relative"), "$.hooks.poststop[0].path"),
        (Hook("/x", timeout=0), "$.hooks.poststop[0].timeout"),
        (Hook("/x", ["\0"]), "$.hooks.poststop[0]"),
    ):
        with pytest.raises(SpecError) as info:
            hooks.check(Hooks(poststop=[hook]), warnings.append)
        assert info.value.path == where
    hooks.check(Hooks(start_container=[Hook("/x")]), warnings.append)
    assert warnings == []
    hooks.run(None, Phase.PRESTART, _state(tmp_path))
