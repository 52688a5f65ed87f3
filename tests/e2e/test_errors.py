"""Bundles and hosts that are wrong: what the caller is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Bundle, execute
from tests.e2e.test_terminal import Person


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not JSON"),
        ("{}", "Object missing required field `ociVersion` - at `$`"),
        ('{"ociVersion": "1.2.0"}', "process property must not be empty - at `$.process`"),
        (
            '{"ociVersion": "1.2.0", "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", '
            '"args": ["a", 5]}}',
            "Expected `str`, got `int` - at `$.process.args[1]`",
        ),
    ],
)
def test_malformed_document_is_reported_with_its_json_path(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(text)

    result = execute([*RUNSC, f"--root={tmp_path}/state", "run", f"--bundle={tmp_path}", "x"])

    assert result.returncode == 1
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "state").exists()


def test_missing_root_is_reported(bundle: Bundle) -> None:
    bundle.document["root"]["path"] = "nowhere"

    result = bundle.run()

    assert result.returncode == 1
    assert f"invalid rootfs: stat {bundle.path}/nowhere: no such file or directory" in result.stderr


@pytest.mark.root
@pytest.mark.parametrize(
    ("hide", "message"),
    [
        ("mount -t tmpfs none /dev", "/dev/kvm is not there"),
        ("mount --bind /dev/null /dev/kvm", "/dev/kvm is not KVM's device"),
    ],
)
def test_without_kvm_the_other_platform_is_named(
    bundle: Bundle, tmp_path: Path, hide: str, message: str
) -> None:
    if "/dev/kvm" in hide and not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm to hide")
    keep = "mknod /dev/null c 1 3; chmod 666 /dev/null;" if "tmpfs" in hide else ""
    script = f'{hide} && {keep} exec "$@"'

    result = execute(["unshare", "--mount", "sh", "-c", script, "sh", *bundle.command("kvm")])

    assert result.returncode == 1
    assert message in result.stderr
    assert "--platform=unicorn" in result.stderr


def test_at_a_terminal_messages_are_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    person = Person([*RUNSC, f"--root={tmp_path}/state", "run", f"--bundle={tmp_path}", "x"])

    person.see(b"runsc: run failed: JSON specification file config.json not found\r\n")

    assert person.leave() == 1


def test_at_a_terminal_wrong_usage_is_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    person = Person([*RUNSC, "run", "--debug", "x"])

    shown = person.see(b"runsc: --debug is a global flag: put it before the command")
    assert shown == b""
    person.see(b"Try 'runsc run --help'.\r\n")

    assert person.leave() == 1


def test_elsewhere_they_have_runcs_form(tmp_path: Path) -> None:
    result = execute([*RUNSC, f"--root={tmp_path}/state", "state", "x"])

    assert result.stderr.endswith('level=error msg="container \\"x\\" does not exist"\n')
    assert result.stderr.startswith('time="')


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["run", "--platform=unicorn", "x"], "runsc --platform=unicorn run ..."),
        (["run", "--platform", "unicorn", "x"], "runsc --platform=... run ..."),
        (["run", "--debug", "x"], "runsc --debug run ..."),
        (["exec", "--strace", "x", "ls"], "runsc --strace exec ..."),
        (["do", "--platform=unicorn", "ls"], "runsc --platform=unicorn do ..."),
        (["do", "--publsh=80:80", "ls"], "--publish"),
        (["policy", "lod", "x"], "load"),
        (["rnu", "x"], "Did you mean 'run'?"),
        (["help", "rnu"], "Did you mean 'run'?"),
        (["sh"], "runsc do sh"),
    ],
)
def test_usage_that_is_nearly_right_gets_a_hint(
    tmp_path: Path, args: list[str], hint: str
) -> None:
    result = execute([*RUNSC, f"--root={tmp_path}/state", *args])

    assert result.returncode == (125 if args[0] == "do" else 1)
    assert hint in result.stderr


@pytest.mark.root
@pytest.mark.parametrize("platform", ["kvm", "unicorn"])
def test_namespaces_that_cannot_be_made_are_no_traceback(tmp_path: Path, platform: str) -> None:
    command = [*RUNSC, f"--root={tmp_path}/state", f"--platform={platform}", "do", "true"]
    script = 'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"'

    result = execute(["unshare", "-Urm", "sh", "-c", script, "sh", *command])

    assert result.returncode == 125
    assert "cannot make namespaces for the sandbox: a limit is reached" in result.stderr
    assert "Traceback" not in result.stderr
    assert os.listdir(tmp_path / "state") == [".lock"]


def _redirected(tmp_path: Path, to: str, *args: str) -> tuple[int, str]:
    """The exit code, and what is on standard error."""
    command = [*RUNSC, f"--root={tmp_path}/state", *args]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {to}', "bash", *command],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", [["list"], ["help", "syscalls"], ["--help"], ["do", "--help"]])
def test_reader_that_has_enough_hears_no_complaint(
    tmp_path: Path, args: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*RUNSC, f"--root={tmp_path}/state", *args], stdin=subprocess.DEVNULL, stdout=writer,
        stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("args", [["list"], ["features"]])
def test_output_that_finds_no_room_is_an_error(tmp_path: Path, args: list[str]) -> None:
    code, said = _redirected(tmp_path, "> /dev/full", *args)
    assert code == 1
    assert "no space left on device" in said and "Traceback" not in said


def test_closed_streams_are_no_traceback(tmp_path: Path) -> None:
    assert _redirected(tmp_path, ">&-", "list") == (0, "")
    assert _redirected(tmp_path, ">&-", "state", "x")[0] == 1
    assert _redirected(tmp_path, ">&- 2>&-", "state", "x") == (1, "")
