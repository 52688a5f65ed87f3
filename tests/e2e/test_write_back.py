"""A root that is written behind: what a program has done to names is on the host in the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.filesystems.layers import layered
from tests.e2e.bundle import KEPT, PLAIN, REPOSITORY, Bundle, execute
from tests.e2e.client import Client, wait_for_end
from tests.e2e.pod import Pod
from tests.e2e.processes import wait_for_state

pytestmark = pytest.mark.root

FLAGS = (KEPT,)
HISTORY = """
mkdir /files && cd /files || exit
i=0
while [ $i -lt 60 ]; do
    echo $i > n$i && mv n$i m$i && ln m$i l$i && rm m$i && echo $i || exit
    i=$((i + 1))
done
exec sleep 1000
"""
"""Makes files, and says so; each has three names, one after the other."""


@pytest.fixture
def bundle(tmp_path: Path, busybox: Path) -> Bundle:
    """With a root of its own, which is written to."""
    root = tmp_path / "root"
    shutil.copytree(busybox, root, symlinks=True)
    return Bundle(tmp_path / "bundle", root).args("sh", "-c", HISTORY)


@pytest.fixture
def layers(tmp_path: Path, busybox: Path) -> Iterator[Bundle]:
    """The same with a root as engines have it: an overlayfs."""
    with ExitStack() as ends:
        root = layered(tmp_path / "root", [busybox], tmp_path / "upper", ends)
        yield Bundle(tmp_path / "bundle", root).args("sh", "-c", HISTORY)


@pytest.fixture
def running(bundle: Bundle, platform: str) -> Iterator[subprocess.Popen[str]]:
    """`run`, whose output tells how far the program has come."""
    with subprocess.Popen(
        bundle.command(platform, FLAGS), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def heard(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    for _ in range(count):
        assert process.stdout.readline()


def check(root: Path, told: int) -> None:
    """The names are those of a moment after `told` rounds."""
    names = set(os.listdir(root / "files"))
    whole = {name for name in names if name[0] == "l"}
    assert whole >= {f"l{number}" for number in range(told)}
    assert whole == {f"l{number}" for number in range(len(whole))}
    last = len(whole)
    assert names - whole in (set(), {f"n{last}"}, {f"m{last}"}, {f"m{last - 1}"})
    for name in whole:
        assert (root / "files" / name).read_text() == f"{name[1:]}\n"


@pytest.mark.parametrize("rounds", [1, 7, 40])
def test_sandbox_that_is_killed_has_lost_nothing(
    bundle: Bundle, running: subprocess.Popen[str], rounds: int
) -> None:
    """The Gofer stands still meanwhile: it has all of it in memory alone."""
    heard(running, 2)
    state = wait_for_state(bundle.path / "state", "test")
    os.kill(state["goferPid"], signal.SIGSTOP)
    behind = min(rounds, 10)
    heard(running, behind)
    assert not (bundle.rootfs / "files" / f"l{1 + behind}").exists()
    if rounds > behind:
        os.kill(state["goferPid"], signal.SIGCONT)
        heard(running, rounds - behind)
    os.kill(state["sentryPid"], signal.SIGKILL)
    os.kill(state["goferPid"], signal.SIGCONT)
    _, error = running.communicate()

    assert "the sandbox process was killed by signal 9" in error
    check(bundle.rootfs, 2 + rounds)


def test_sandbox_over_layers_that_is_killed_has_lost_nothing(layers: Bundle, platform: str) -> None:
    with subprocess.Popen(
        layers.command(platform, FLAGS), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        text=True, cwd=REPOSITORY,
    ) as process:  # fmt: skip
        heard(process, 2)
        state = wait_for_state(layers.path / "state", "test")
        os.kill(state["goferPid"], signal.SIGSTOP)
        heard(process, 10)
        assert not (layers.rootfs / "files" / "l10").exists()
        os.kill(state["sentryPid"], signal.SIGKILL)
        os.kill(state["goferPid"], signal.SIGCONT)
        process.wait()
    check(layers.rootfs, 12)


def test_name_that_the_host_makes_meanwhile_is_the_programs(
    bundle: Bundle, running: subprocess.Popen[str]
) -> None:
    """The Gofer stands still, and hears of neither."""
    heard(running, 2)
    state = wait_for_state(bundle.path / "state", "test")
    os.kill(state["goferPid"], signal.SIGSTOP)
    heard(running, 10)
    for number in range(8, 12):
        (bundle.rootfs / "files" / f"l{number}").write_text("the host's\n")
    os.kill(state["goferPid"], signal.SIGCONT)
    heard(running, 10)
    os.kill(state["sentryPid"], signal.SIGKILL)
    running.communicate()
    check(bundle.rootfs, 22)


def test_command_that_is_killed_has_lost_nothing(
    bundle: Bundle, running: subprocess.Popen[str], platform: str
) -> None:
    heard(running, 5)
    state = wait_for_state(bundle.path / "state", "test")
    gofer = os.pidfd_open(state["goferPid"])
    running.kill()
    wait_for_end(gofer)
    check(bundle.rootfs, 5)


def test_container_ends_after_all_is_written(bundle: Bundle, platform: str) -> None:
    client = Client(bundle, platform)
    client.flags += FLAGS
    bundle.args("sh", "-c", HISTORY.replace("exec sleep 1000", "exit 7"))
    pid = client.create("c")
    standing = os.pidfd_open(pid)
    client.ok("start", "c")
    wait_for_end(standing)
    check(bundle.rootfs, 60)
    client.ok("delete", "c")


def test_forced_deletion_waits_for_what_is_to_be_written(bundle: Bundle, platform: str) -> None:
    client = Client(bundle, platform)
    client.flags += FLAGS
    client.create("c")
    client.ok("start", "c")
    output = bundle.path / "c.out"
    while len(output.read_text().split()) < 20:
        time.sleep(0.001)
    client.ok("delete", "--force", "c")
    check(bundle.rootfs, len(output.read_text().split()))


def test_container_of_a_pod_ends_after_all_is_written(
    bundle: Bundle, tmp_path: Path, busybox: Path, platform: str
) -> None:
    pod = Pod(tmp_path / "pod", busybox, platform)
    pod.run("pause")
    client = pod.client("app")
    client.flags += FLAGS
    client.bundle.document["root"]["path"] = str(bundle.rootfs)
    pod.create("app", HISTORY.replace("exec sleep 1000", "exit 7"))
    standing = os.pidfd_open(pod.pids["app"])
    client.ok("start", "app")
    wait_for_end(standing)
    check(bundle.rootfs, 60)
    pod.end()


def test_sync_and_pause_bring_it_to_the_host(bundle: Bundle, platform: str) -> None:
    """Of one that has ended there is nobody to ask."""
    client = Client(bundle, platform)
    client.flags += FLAGS
    pid = client.create("c")
    standing = os.pidfd_open(pid)
    client.ok("start", "c")
    output = bundle.path / "c.out"
    while len(output.read_text().split()) < 20:
        time.sleep(0.001)
    for command in ("sync", "pause", "sync"):
        told = len(output.read_text().split())
        client.ok(command, "c")
        check(bundle.rootfs, told)
    client.ok("kill", "c", "KILL")
    wait_for_end(standing)
    ended = client.call("sync", "c")
    assert ended.returncode == 1
    assert "not running" in ended.stderr
    client.ok("delete", "c")


def test_root_that_is_mounted_in_part_is_seen_by_both_ways(bundle: Bundle, platform: str) -> None:
    """Nothing is written behind then, and neither way remembers what the other one changes."""
    (bundle.rootfs / "files").mkdir()
    (bundle.rootfs / "seen").mkdir()
    bundle.document["mounts"].append(
        {"destination": "/seen", "source": str(bundle.rootfs / "files"), "type": "bind"}
    )
    bundle.args("sh", "-c", """
        for i in 1 2 3 4 5; do
            ls /seen /files > /dev/null
            echo $i > /files/a$i; cat /seen/a$i; mv /seen/a$i /files/b$i; rm /seen/b$i
            test ! -e /files/b$i && mkdir /seen/d$i && test -d /files/d$i || exit 1
        done""")  # fmt: skip
    done = bundle.run(platform, flags=(*FLAGS, "--debug"))
    assert done.stdout == "1\n2\n3\n4\n5\n", done.stderr
    assert "not written behind: it overlaps" in done.stderr
    assert sorted(os.listdir(bundle.rootfs / "files")) == [f"d{number}" for number in range(1, 6)]


@pytest.mark.parametrize("container", ["alone", "of a pod"])
def test_two_containers_over_a_root_make_each_name_once(
    bundle: Bundle, platform: str, container: str
) -> None:
    """The first one stops writing behind when the second begins, and what it has done by then is
    there before that; then each sees what the other one does."""
    for name in ("files", "won"):
        (bundle.rootfs / name).mkdir()
    race = """
        cd /files; while [ ! -e $NAME.go ]; do :; done
        for i in $(seq 300); do mkdir $i 2>/dev/null && echo x > /won/$i.$NAME; done; echo done
        exec sleep 1000"""
    client = Client(bundle, platform)
    client.flags += FLAGS
    bundle.document["process"]["env"].append("NAME=one")
    bundle.args("sh", "-c", f"for i in $(seq 50); do mkdir /files/early$i; done; echo up; {race}")
    client.create("one")
    client.ok("start", "one")
    while client.output("one") != "up\n":
        time.sleep(0.001)
    if container == "of a pod":
        cri = "io.kubernetes.cri."
        bundle.document["annotations"] = {
            f"{cri}container-type": "container", f"{cri}sandbox-id": "one",
        }  # fmt: skip
    bundle.document["process"]["env"][-1] = "NAME=other"
    bundle.args("sh", "-c", f"ls /files | grep -c early; {race}")
    client.create("other")
    assert len(os.listdir(bundle.rootfs / "files")) == 50
    client.ok("start", "other")
    for name in ("one", "other"):
        (bundle.rootfs / "files" / f"{name}.go").touch()
    while not all(client.output(name).endswith("done\n") for name in ("one", "other")):
        time.sleep(0.001)
    names = [name.partition(".")[0] for name in os.listdir(bundle.rootfs / "won")]
    assert sorted(names, key=int) == [str(number) for number in range(1, 301)]
    assert client.output("other") == "50\ndone\n"
    for name, theirs in (("one", "other"), ("other", "one")):
        client.ok("exec", theirs, "mkdir", f"/files/of-{theirs}")
        see = f"until [ -e /files/of-{theirs} ]; do :; done; ls /files | grep -vc '[ely]'"
        assert client.ok("exec", name, "timeout", "30", "sh", "-c", see) == "300\n"
    for name in ("other", "one"):
        client.ok("delete", "--force", name)


def test_sandbox_that_mounts_the_root_of_another_sees_all_that_was_done(
    bundle: Bundle, tmp_path: Path, busybox: Path, platform: str
) -> None:
    """Also what is done later: nothing is behind from then on."""
    client = Client(bundle, platform)
    client.flags += FLAGS
    look = "until [ -e /go ]; do :; done; mkdir /files/late; echo made; exec sleep 1000"
    bundle.args("sh", "-c", f"mkdir /files && mkdir /files/early && echo up; {look}")
    client.create("c")
    client.ok("start", "c")
    while client.output("c") != "up\n":
        time.sleep(0.001)
    other = Bundle(tmp_path / "other", busybox)
    other.document["mounts"].append(
        {"destination": "/theirs", "source": str(bundle.rootfs), "type": "bind"}
    )
    made = "until grep -q made /out; do :; done; ls /theirs/files; rmdir /theirs/files/early"
    out = {"destination": "/out", "source": str(bundle.path / "c.out"), "options": ["bind", "ro"]}
    other.document["mounts"].append(out)
    other.args("sh", "-c", f"ls /theirs/files; touch /theirs/go; {made}")
    command = [*PLAIN, *client.flags, "--overlay2=root:memory", "run", f"--bundle={other.write()}"]
    done = execute([*command, "other"])
    assert (done.stdout, done.stderr) == ("early\nearly\nlate\n", "")
    seen = "until [ ! -e /files/early ]; do :; done; echo gone"
    assert client.ok("exec", "c", "timeout", "30", "sh", "-c", seen) == "gone\n"
    client.ok("delete", "--force", "c")


def test_root_is_kept_by_default_and_shared_with_others_where_that_is_said(
    bundle: Bundle, platform: str
) -> None:
    bundle.args("sh", "-c", "mkdir /files && echo x > /files/a && mv /files/a /files/b")
    state = f"--root={bundle.path}/state"
    for flags, behind in (([], True), (["--file-access=shared"], False)):
        shutil.rmtree(bundle.rootfs / "files", ignore_errors=True)
        command = [*PLAIN, state, f"--platform={platform}", *flags, "--debug"]
        done = execute([*command, "run", f"--bundle={bundle.write()}", "c"])
        assert done.returncode == 0, done.stderr
        assert ("names up to a second later" in done.stderr) is behind
        assert (bundle.rootfs / "files" / "b").read_text() == "x\n"
