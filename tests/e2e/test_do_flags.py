"""`runsc do` with the flags of `docker run`."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Result, execute, kvm_is_usable
from tests.e2e.client import held_port
from tests.unit.runsc.images.making import archive, file, layout, packed

PLATFORM = "kvm" if kvm_is_usable() else "unicorn"


def _do(tmp_path: Path, *args: str | Path, flags: tuple[str, ...] = ()) -> Result:
    own = (f"--root={tmp_path}/state", f"--platform={PLATFORM}", *flags)
    return execute([*RUNSC, *own, "do", *args])


def _said(tmp_path: Path, *args: str | Path) -> list[str]:
    """What it writes, where nothing is wrong."""
    done = _do(tmp_path, *args)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


def test_volume_keeps_what_is_written_and_a_read_only_one_takes_nothing(
    tmp_path: Path, busybox: Path
) -> None:
    for name in ("out", "in"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "text").write_text("read\n")
    volumes = ["-v", f"{tmp_path}/out:/new/out", f"--volume={tmp_path}/in:/in:ro"]
    script = "cat /in/text; pwd; echo kept > made; touch /in/made; touch /gone"

    done = _do(tmp_path, "--root", busybox, *volumes, "-w", "/new/out", "sh", "-c", script)

    assert done.stdout == "read\n/new/out\n"
    assert "touch: /in/made: Read-only file system" in done.stderr
    assert (tmp_path / "out" / "made").read_text() == "kept\n"
    assert os.listdir(tmp_path / "in") == ["text"]
    assert not (busybox / "gone").exists() and not (busybox / "new").exists()


def test_file_may_be_a_volume_over_ones_own_files(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("ours\n")
    assert _said(tmp_path, "-v", tmp_path / "motd:/etc/hostname", "cat", "/etc/hostname") == [
        "ours"
    ]


def test_published_port_is_reached_without_a_network(tmp_path: Path, busybox: Path) -> None:
    script = "echo hello | nc -l -p 80"
    with held_port() as port:
        command = [
            *RUNSC, f"--root={tmp_path}/state", f"--platform={PLATFORM}", "do",
            "--root", str(busybox), "-p", f"{port}:80/tcp", "sh", "-c", script,
        ]  # fmt: skip
        with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL) as process:
            assert first_words(port, process) == b"hello\n"
            assert process.wait(TIMEOUT_S) == 0


def first_words(port: int, process: subprocess.Popen[Any]) -> bytes:
    """Of who listens inside, once it does."""
    while process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                if found := sock.recv(100):
                    return found
        except OSError:
            time.sleep(0.001)
    raise AssertionError("it has ended")


def test_variables_user_host_name_and_folder(tmp_path: Path, busybox: Path) -> None:
    (tmp_path / "env").write_text("# of a test\nA=file\nB=file\n")
    flags = [
        "--env-file", tmp_path / "env", "-e", "B=word", "--user", "12:34", "--hostname", "box",
        "--workdir=/tmp", "--rm", "-it",
    ]  # fmt: skip
    script = "echo $A $B; id -u; id -g; hostname; pwd"

    found = _said(tmp_path, "--root", busybox, *flags, "sh", "-c", script)

    assert found == ["file word", "12", "34", "box", "/tmp"]


def test_words_and_variables_need_not_be_text(tmp_path: Path, busybox: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    script = 'printf "%s%s" "$1" "$ODD" | od -An -tx1'
    args = ["-e", f"ODD={odd}", "sh", "-c", script, "sh", odd]
    assert _said(tmp_path, "--root", busybox, *args) == [" ff fe ff fe"]


def test_user_by_name_has_no_rights(tmp_path: Path) -> None:
    script = "id -un; grep CapEff /proc/self/status; touch /etc/mine 2> /dev/null || echo refused"
    done = _do(tmp_path, "-u", "nobody", "-w", "/", "sh", "-c", script)
    assert done.stdout == "nobody\nCapEff:\t0000000000000000\nrefused\n"


@pytest.mark.usefixtures("caller")
def test_other_user_has_the_home_of_its_own(tmp_path: Path) -> None:
    own = pwd.getpwnam("daemon").pw_dir
    script = "echo $HOME ${USER-none} $KEPT"
    flags = ["-w", "/", "-u"]
    assert _said(tmp_path, *flags, "daemon", "sh", "-c", script) == [f"{own} none yes"]
    assert _said(tmp_path, *flags, "54321", "sh", "-c", script) == ["/ none yes"]
    environment = ["-e", "HOME=/tmp", "-e", "USER"]
    assert _said(tmp_path, *environment, *flags, "daemon", "sh", "-c", script) == ["/tmp me yes"]


@pytest.mark.usefixtures("caller")
def test_without_another_user_the_callers_variables_are_there(tmp_path: Path) -> None:
    assert _said(tmp_path, "-w", "/", "sh", "-c", "echo $HOME $USER") == ["/home/me me"]


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has a home of another place."""
    for name, value in {"HOME": "/home/me", "USER": "me", "KEPT": "yes"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.root
def test_quiet_drops_every_warning(tmp_path: Path, busybox: Path) -> None:
    assert _said(tmp_path, "-q", "--net=sandbox", "--root", busybox, "true") == []


def test_words_of_the_program_are_no_flags(tmp_path: Path, busybox: Path) -> None:
    words = ["-name=x", "--name", "-d", "--", "-it", "--rm=false", "--volume", "-quiet"]
    assert _said(tmp_path, "--root", busybox, "--cap-add=ALL", "echo", *words) == [
        " ".join(words)
    ]  # fmt: skip
    done = _do(tmp_path, "-P", "echo", "-name")
    assert "-P has no place here: name the ports" in done.stderr


def test_read_only_leaves_volumes(tmp_path: Path, busybox: Path) -> None:
    (tmp_path / "out").mkdir()
    script = "touch /x || touch /out/x"
    flags = ["--read-only", "-v", f"{tmp_path}/out:/out"]

    done = _do(tmp_path, "--root", busybox, *flags, "sh", "-c", script)

    assert (done.stderr, done.returncode) == ("touch: /x: Read-only file system\n", 0)
    assert os.listdir(tmp_path / "out") == ["x"]


CONNECTS = """
import socket
with socket.socket(socket.AF_UNIX) as sock:
    print(sock.connect_ex("/tmp/sock"))
open("/tmp/out/made", "w").close()
"""


@pytest.mark.parametrize(
    ("flags", "connected", "kept"),
    [
        ((), 0, ["made"]),
        (("--host-uds=none",), errno.ECONNREFUSED, ["made"]),
        (("--overlay2=all:memory",), 0, []),
    ],
)
def test_global_flags_about_the_hosts_files_hold_for_volumes(
    tmp_path: Path, flags: tuple[str, ...], connected: int, kept: list[str]
) -> None:
    (tmp_path / "out").mkdir()
    volumes = ["-v", f"{tmp_path}/sock:/tmp/sock", "-v", f"{tmp_path}/out:/tmp/out"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/sock")
        listening.listen()
        done = _do(tmp_path, *volumes, "--python", "-c", CONNECTS, flags=flags)
    assert (done.stdout, done.stderr) == (f"{connected}\n", "")
    assert os.listdir(tmp_path / "out") == kept


def test_root_may_be_a_relative_path(tmp_path: Path, busybox: Path) -> None:
    path = os.path.relpath(busybox, REPOSITORY)
    assert _said(tmp_path, "--root", path, "sh", "-c", "pwd; echo /etc/host*") == [
        "/", "/etc/hosts",
    ]  # fmt: skip


def test_memory_is_what_the_program_has(tmp_path: Path, busybox: Path) -> None:
    script = "grep MemTotal /proc/meminfo"
    for size in ("96m", "96MiB", "100663296"):
        found = _said(tmp_path, "--root", busybox, "-m", size, "sh", "-c", script)
        assert found[0].split()[1] == str(96 << 10)


@pytest.mark.root
def test_cpus_are_a_quota(tmp_path: Path, busybox: Path) -> None:
    script = "cat /sys/fs/cgroup/cpu.max"
    found = _said(tmp_path, "--root", busybox, "--cpus", "0.5", "sh", "-c", script)
    assert found == ["50000 100000"]


def test_network_may_be_said_behind_it(tmp_path: Path) -> None:
    names = set(os.listdir("/sys/class/net"))
    inside = ["sh", "-c", "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '"]
    assert set(_said(tmp_path, "--net", "host", *inside)) == names
    assert _said(tmp_path, "--network=none", *inside) == ["lo"]
    assert _said(tmp_path, "-network=none", "-memory=96m", *inside) == ["lo"]


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's: the first on the PATH."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python3"
    program.write_text(f'#!/bin/sh\nOURS=1 exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")


@pytest.mark.usefixtures("python")
def test_python_is_the_callers(tmp_path: Path) -> None:
    script = "import os, sys; print(sys.argv[1:], os.environ['OURS'])"
    (tmp_path / "script.py").write_text(script)

    said = _said(tmp_path, "--python", tmp_path / "script.py", "-c", "-v")
    assert said == ["['-c', '-v'] 1"]
    code = "import os; print(os.environ['A'])"
    assert _said(tmp_path, "-e", "A=6", "--python", "-c", code) == ["6"]
    assert _said(tmp_path, "--python", "-m", "this")[0] == "The Zen of Python, by Tim Peters"


@pytest.mark.usefixtures("python")
def test_words_behind_python_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text("import sys; print(sys.argv[1:], '-u' in sys.orig_argv)")
    words = ["-quiet", "--read-only=false", "-user=x"]
    search = ["-e", f"PYTHONPATH={tmp_path}"]
    assert _said(tmp_path, *search, "--python", "-m", "words", *words) == [f"{words} False"]

    volume = f"{tmp_path}:/files"
    assert _said(tmp_path, "-iv", volume, "--python", "-u", "/files/words.py") == ["[] True"]


@pytest.mark.usefixtures("python")
def test_python_without_more_reads_its_program(tmp_path: Path) -> None:
    command = [*RUNSC, f"--root={tmp_path}/state", f"--platform={PLATFORM}", "do", "--python"]
    assert execute(command, stdin="print(6 * 7)").stdout == "42\n"


def test_flags_give_an_image_other_values_than_its_own(
    tmp_path: Path, busybox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OUTSIDE", "here")
    lower = subprocess.run(["tar", "-C", busybox, "-cf", "-", "."], check=True, capture_output=True)
    upper = archive(file("etc/passwd", b"web:x:101:102::/:/\n"), file("etc/group", b"www:x:33:\n"))
    config = {"Env": ["PATH=/bin", "A=1", "B=2"], "User": "web", "Cmd": ["sh", "-c", "id -u"]}
    (tmp_path / "image.tar").write_bytes(packed(layout(lower.stdout, upper, config=config)))
    image = ["--image", tmp_path / "image.tar"]

    assert _said(tmp_path, *image, "-u", "0") == ["0"]
    flags = ["-u", "web:www", "-e", "A=3", "-e", "OUTSIDE"]
    script = "echo $A $B $OUTSIDE; id -u; id -g"
    assert _said(tmp_path, *image, *flags, "sh", "-c", script) == ["3 2 here", "101", "33"]
    done = _do(tmp_path, *image, "-u", "who", "true")
    assert "/etc/passwd has no user 'who'" in done.stderr


@pytest.mark.parametrize(
    ("flags", "args", "message"),
    [
        ((), ["-v", "/nowhere:/x", "true"], "--volume '/nowhere:/x': /nowhere: no such file or"
         " directory"),
        ((), ["-p", "80", "true"], "--publish '80': [IP:]PORT:PORT, with a port of the host and one"
         " inside"),
        ((), ["-p", "53:53/udp", "true"], "--publish '53:53/udp': only TCP can be published"),
        ((), ["-m", "much", "true"], "--memory: much is not a size, such as 512M or 2G"),
        ((), ["-m", "1m", "true"], "--memory: 1m is less than 64M"),
        ((), ["-u", "nobody-here", "true"], "/etc/passwd has no user 'nobody-here'"),
        ((), ["-w", "/nowhere", "true"], "--cwd /nowhere: no such directory in /"),
        ((), ["--net", "bridge", "true"], "'bridge' is not one of 'none', 'host', 'sandbox'"),
        (("--network=none",), ["--net", "host", "true"], "--network is there twice, before `do` and"
         " behind it: which one?"),
        (("--memory=1g",), ["-m", "2g", "true"], "--memory is there twice, before `do` and behind"
         " it: which one?"),
        ((), ["--root", "", "true"], "--root : no such directory"),
        ((), ["--root", "/", "--image", "x", "true"], "--root and --image: only one of them"),
        ((), ["--name", "x", "true"], "--name has no place here: use `runsc run --detach NAME`"),
        ((), ["--mount", "type=bind", "true"], "--mount has no place here: use --volume SRC:DST"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_and_nothing_runs(
    tmp_path: Path, flags: tuple[str, ...], args: list[str], message: str
) -> None:
    done = _do(tmp_path, *args, flags=flags)
    assert (done.stdout, done.returncode) == ("", 125)
    assert message in done.stderr
    assert not list((tmp_path / "state").glob("runsc-do-*"))
