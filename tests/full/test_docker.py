"""docker over the runtime of these tests: the commands that people use, an image made here."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import Result
from tests.e2e.talker import Talker
from tests.full.containerd import until
from tests.full.docker import Docker, execute, needs_docker
from tests.full.engine import MEMORY, SIGNALS, TIMEOUT_S
from tests.full.runtimes import RUNTIME, is_there, only_ours

PIDS = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"
pytestmark = [pytest.mark.full, pytest.mark.root, needs_docker, is_there]


@pytest.fixture
def detached(docker: Docker) -> Iterator[str]:
    """A detached container that says "up"."""
    yield docker.detached("detached", "--memory=300m")
    docker.ok("rm", "--force", "detached")


@pytest.mark.row("`run -i`: streams and the exit code")
def test_run_passes_streams_and_the_exit_code(docker: Docker) -> None:
    result = docker.run("-i", "bb", "sh", "-c", "cat; echo e >&2; exit 5", stdin="in\n")

    assert (result.returncode, result.stdout, result.stderr) == (5, "in\n", "e\n")


@pytest.mark.row(
    "a program that cannot be run: exit codes 126, 127",
    gvisor="the message is its own",
)
@pytest.mark.parametrize(
    ("program", "code", "text"),
    [("nope", 127, "executable file not found in $PATH"), ("/bin", 126, "is a directory")],
)
def test_programs_that_cannot_run(docker: Docker, program: str, code: int, text: str) -> None:
    result = docker.run("bb", program)

    assert result.returncode == code
    assert text.lower() in result.stderr.lower()


@pytest.mark.row("a program that a signal ends: 128 + n", gvisor="an init dies of SIGTERM, too")
@pytest.mark.parametrize(("flags", "script", "code"), SIGNALS)
def test_exit_code_tells_the_signal(
    docker: Docker, flags: tuple[str, ...], script: str, code: int
) -> None:
    assert docker.run(*flags, "bb", "sh", "-c", script).returncode == code


@pytest.mark.row(
    "`--read-only`, `--user`, `--tmpfs`, `-e`, `-v`",
    gvisor="writing where nothing may be written is `Permission denied`",
)
def test_flags_of_a_container(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from outside\n")
    tmp_path.chmod(0o755)
    flags = ("--read-only", "--user=5:6", "--tmpfs=/t", "-e", "A=b", "-v", f"{tmp_path}:/v:ro")

    result = docker.run(*flags, "bb", "sh", "-c", "id; echo $A; cat /v/f; echo >/x; echo t >/t/t")

    who, *told = result.stdout.splitlines()
    assert who.startswith("uid=5 gid=6")
    assert told == ["b", "from outside"]
    assert result.stderr == "sh: can't create /x: Read-only file system\n"


@pytest.mark.row(
    "`run -d`, `exec`, `pause`, `update`, `stop`, `logs`, `start`, `kill`, `wait`",
    gvisor="no `update`",
)
def test_life_of_a_detached_container(docker: Docker, detached: str) -> None:
    assert docker.ok("exec", detached, "echo", "in") == "in"
    assert docker.call("exec", detached, "sh", "-c", "exit 6").returncode == 6
    assert "runsc" in docker.ok("top", detached) or not RUNTIME.is_ours
    docker.ok("pause", detached)
    assert docker.status(detached).endswith("(Paused)")
    docker.ok("unpause", detached)
    docker.ok("update", "--memory=400m", "--memory-swap=400m", detached)
    docker.ok("stop", detached)
    assert docker.status(detached).startswith("Exited (9)")
    assert docker.ok("logs", detached) == "up\nbye"
    docker.ok("start", detached)
    docker.ok("kill", detached)
    docker.ok("wait", detached)
    assert docker.status(detached).startswith("Exited (137)")


def _at_a_terminal(docker: Docker, *args: str) -> Result:
    """script(1): a terminal, which pytest does not have."""
    words = ("docker", f"--host=unix://{docker.socket}", *args)
    return execute(["script", "-qec", " ".join(f"'{word}'" for word in words), "/dev/null"])


@pytest.mark.row("`run -it`, `exec -it`", gvisor="tty(1): not a tty")
def test_run_at_a_terminal(docker: Docker) -> None:
    flags = ("-it", "--rm", "--network=none")

    result = _at_a_terminal(docker, "run", *flags, "bb", "sh", "-c", "tty; exit 4")

    assert result.returncode == 4
    assert "/dev/pts/0" in result.stdout


@pytest.mark.row("`run -it`, `exec -it`", gvisor="tty(1): not a tty")
def test_exec_at_a_terminal(docker: Docker, detached: str) -> None:
    result = _at_a_terminal(docker, "exec", "-it", detached, "sh", "-c", "tty; exit 3")

    assert result.returncode == 3
    assert "/dev/pts/" in result.stdout


def test_ctr(docker: Docker, tmp_path: Path) -> None:
    archive = tmp_path / "bb.tar"
    docker.ok("save", "-o", str(archive), "bb")
    imported = docker.ctr("image", "import", "--base-name=local/bb", str(archive))
    assert imported.returncode == 0, imported.stderr
    image = docker.ctr("image", "ls", "-q").stdout.split()[0]
    binary = f"--runc-binary={docker.runtime}"

    once = docker.ctr("run", "--rm", binary, image, "once", "echo", "hi")
    assert (once.returncode, once.stdout) == (0, "hi\n"), once.stderr
    assert docker.ctr("run", "-d", binary, image, "c", "sleep", "1000").returncode == 0
    seen = docker.ctr("task", "exec", "--exec-id=x", "c", "ps")
    assert "sleep 1000" in seen.stdout, seen.stderr
    assert docker.ctr("task", "pause", "c").returncode == 0
    assert "PAUSED" in docker.ctr("task", "ls").stdout
    assert docker.ctr("task", "resume", "c").returncode == 0
    pid = int(docker.ctr("task", "ls").stdout.split()[-2])
    pidfd = os.pidfd_open(pid)
    assert docker.ctr("task", "kill", "-s", "KILL", "c").returncode == 0
    assert select.select([pidfd], [], [], TIMEOUT_S)[0]
    os.close(pidfd)
    docker.ctr("task", "rm", "c")
    removed = docker.ctr("container", "rm", "c")
    assert removed.returncode == 0, removed.stderr


@pytest.mark.row(
    "a kill for want of memory is told (`OOMKilled`)",
    gvisor="the whole sandbox is killed; 16 MiB are too few for it",
)
@pytest.mark.parametrize(
    ("script", "code", "killed"),
    [
        ("tail /dev/zero; exit 5", 5, "true"),
        ("exec tail /dev/zero", 137, "true"),
        ("exit 5", 5, "false"),
    ],
)
def test_out_of_memory_is_told(docker: Docker, script: str, code: int, killed: str) -> None:
    flags = ("--name=oom", "--network=none", "--memory=16m")
    try:
        result = docker.call("run", *flags, "bb", "sh", "-c", script)

        assert result.returncode == code, result
        assert docker.ok("inspect", "--format", "{{.State.OOMKilled}}", "oom") == killed
    finally:
        docker.ok("rm", "--force", "oom")


@pytest.mark.row(
    "`--network`, `--pid`, `--ipc` of another container",
    gvisor="/proc/self/ns is the same in all sandboxes",
)
@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_namespace_of_another_container(docker: Docker, kind: str) -> None:
    flags = ("-d", "--name=base", "--network=none", "--ipc=shareable")
    docker.ok("run", *flags, "bb", "sleep", "1000")
    own = () if kind == "network" else ("--network=none",)
    show = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done"
    try:
        command = ("run", "--rm", f"--{kind}=container:base", *own, "bb")
        shared = docker.ok(*command, "sh", "-c", show).splitlines()
        theirs = docker.ok("exec", "base", "sh", "-c", show).splitlines()
    finally:
        docker.ok("rm", "--force", "base")

    names = ("network", "pid", "ipc", "uts")
    assert {n for n, a, b in zip(names, shared, theirs, strict=True) if a == b} == {kind}


@pytest.mark.row("the same commands for a container in another's network", gvisor="no `update`")
def test_commands_for_a_container_in_anothers_network(docker: Docker) -> None:
    flags = ("-d",)
    docker.ok("run", *flags, "--name=base", "--network=none", "bb", "sleep", "1000")
    near = (*flags, "--network=container:base", "bb")
    try:
        docker.ok("run", "--name=near", *near, "sleep", "1000")
        assert "runsc: " in docker.ok("top", "near") or not RUNTIME.is_ours
        docker.ok("pause", "near")
        assert "(Paused)" in docker.status("near")
        assert "(Paused)" not in docker.status("base")
        docker.ok("unpause", "near")
        docker.ok("update", "--pids-limit=20", "near")
        limit = docker.ok("exec", "near", "sh", "-c", f"{PIDS}; true")
        assert limit == "20"
        docker.ok("run", "--name=full", "-m=32m", *near, "sh", "-c", "tail /dev/zero; exit 7")
        assert docker.ok("wait", "full") == "7"
        assert docker.ok("inspect", "--format", "{{.State.OOMKilled}}", "full") == "true"
        assert docker.ok("exec", "near", "echo", "alive") == "alive"
        docker.ok("rm", "--force", "near")
        assert docker.ok("exec", "base", "echo", "alive") == "alive"
    finally:
        docker.call("rm", "--force", "near", "full", "base")


@only_ours
def test_device_of_the_host_is_refused_by_its_name(docker: Docker) -> None:
    result = docker.run("--device=/dev/kvm", "bb", "true")

    assert result.returncode != 0
    assert "/dev/kvm (c 10:232) is a device of the host" in result.stderr


@pytest.mark.row("`--uts=host`", gvisor="the hostname is `?`")
def test_uts_of_the_host(docker: Docker) -> None:
    assert docker.run("--uts=host", "bb", "hostname").stdout.strip() == os.uname().nodename


@pytest.mark.row(
    "`top`",
    ours="one line for all of the container: use `exec CTR ps`",
    gvisor="lists processes of the host",
)
def test_top_lists_what_runs_inside(docker: Docker, detached: str) -> None:
    assert "sleep 0.05" in docker.ok("top", detached)


def _stats(docker: Docker, name: str, what: str) -> str:
    return docker.ok("stats", "--no-stream", "--format", what, name)


@pytest.mark.row("`stats`")
def test_stats_show_memory_and_processes(docker: Docker, detached: str) -> None:
    assert not _stats(docker, detached, "{{.MemUsage}}").startswith("0B")
    assert int(_stats(docker, detached, "{{.PIDs}}")) >= 1


@pytest.mark.row("`stats`", ours="its limit is higher, by what the sandbox itself takes")
def test_stats_show_the_limit_that_was_given(docker: Docker, detached: str) -> None:
    assert _stats(docker, detached, "{{.MemUsage}}").endswith("/ 300MiB")


@pytest.mark.row("`restart`")
def test_restart(docker: Docker, detached: str) -> None:
    docker.ok("restart", detached)

    assert docker.status(detached).startswith("Up")
    docker.logs(detached, "up\nbye\nup")


@pytest.mark.row("`attach`")
def test_attach_to_what_reads(docker: Docker) -> None:
    script = "echo up; while read x; do echo got $x; [ $x = end ] && exit 7; done"
    docker.detached("reads", "-i", script=script)

    heard = Talker(["docker", f"--host=unix://{docker.socket}", "attach", "reads"])
    heard.say("one")
    assert heard.hear() == "got one"
    heard.say("end")
    assert heard.hear() == "got end"
    heard.end()

    assert docker.ok("wait", "reads") == "7"
    docker.ok("rm", "reads")


@pytest.mark.row("`--init`")
def test_init_reaps(docker: Docker) -> None:
    orphan = "sh -c 'true & echo $! >/tmp/pid'; while kill -0 $(cat /tmp/pid) 2>&-; do :; done"

    result = docker.run("--init", "bb", "sh", "-c", f"cat /proc/1/comm; {orphan}; echo gone")

    assert result.stdout.splitlines() == ["docker-init", "gone"], result.stderr


@pytest.mark.row("`--security-opt=seccomp`", gvisor="only with `--oci-seccomp`")
def test_seccomp_profile(docker: Docker, tmp_path: Path) -> None:
    refused = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}
    (tmp_path / "profile").write_text(json.dumps(profile))
    flag = f"--security-opt=seccomp={tmp_path}/profile"

    result = docker.run(flag, "bb", "sh", "-c", "mkdir /new 2>&1; true")

    assert "not supported" in result.stdout.lower(), result


@pytest.mark.row(
    "`--memory`, `--pids-limit`, `--cpus`, `--ulimit`",
    gvisor="not seen in the container",
)
def test_limits_are_seen_inside(docker: Docker) -> None:
    flags = ("--memory=256m", "--pids-limit=40", "--cpus=1", "--ulimit=nofile=100:200")

    result = docker.run(*flags, "bb", "sh", "-c", f"ulimit -n; {PIDS}; {MEMORY}; true")

    assert result.stdout.split() == ["100", "40", str(256 << 20)], result.stderr


@pytest.mark.row("`--health-cmd`")
def test_health_check_runs_inside(docker: Docker) -> None:
    check = ("--health-cmd=test -e /tmp/well", "--health-interval=100ms", "--health-retries=1")
    docker.detached("checked", *check)
    form = ("inspect", "--format", "{{.State.Health.Status}}", "checked")
    try:
        until(lambda: docker.ok(*form) == "unhealthy")
        docker.ok("exec", "checked", "touch", "/tmp/well")
        until(lambda: docker.ok(*form) == "healthy")
    finally:
        docker.ok("rm", "--force", "checked")
