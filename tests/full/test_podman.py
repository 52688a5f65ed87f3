"""podman over this runtime: the commands that people use, with an image made here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.full.engine import MEMORY, SIGNALS, TIMEOUT_S
from tests.full.podman import IMAGE, Podman, needs_podman
from tests.full.runtimes import is_there, only_ours

pytestmark = [pytest.mark.full, pytest.mark.root, needs_podman, is_there]


@pytest.mark.row("`top CTR -o pid,args`, with CAP_SYS_PTRACE")
def test_top_with_options_of_ps_lists_what_runs_inside(podman: Podman) -> None:
    """Where podman has ps run inside: of a container with this capability."""
    flags = ("--name=seen", "--network=none", "--cap-add=SYS_PTRACE")
    podman.ok("run", "-d", *flags, IMAGE, "sh", "-c", "echo up; sleep 99 & sleep 98; :")
    podman.logs("seen", "up")

    shown = podman.ok("top", "seen", "-o", "pid,args").splitlines()
    podman.ok("rm", "--force", "--time=0", "seen")

    assert {line.split(maxsplit=1)[1].strip() for line in shown} >= {"sleep 99", "sleep 98"}


@pytest.mark.row("`run -i`: streams and the exit code")
def test_run_passes_streams_and_the_exit_code(podman: Podman) -> None:
    result = podman.run("-i", IMAGE, "sh", "-c", "cat; echo e >&2; exit 5", stdin="in\n")

    assert (result.returncode, result.stdout) == (5, "in\n")
    assert result.stderr.endswith("e\n")


@pytest.mark.row(
    "a program that cannot be run: exit codes 126, 127",
    gvisor="the exit code is 126, the message its own",
)
@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("nope", 127, "executable file not found in $PATH"),
        ("/etc/passwd", 126, "permission denied"),
        ("/bin", 126, "is a directory"),
    ],
)
def test_programs_that_cannot_run(podman: Podman, program: str, code: int, text: str) -> None:
    result = podman.run(IMAGE, program)

    assert (result.returncode, text.lower() in result.stderr.lower()) == (code, True), result.stderr


@pytest.mark.row("`-e`, `--user`, `--workdir`, `--hostname`")
def test_environment_user_and_working_directory(podman: Podman) -> None:
    script = "echo $A; id -u; id -g; pwd; hostname"
    flags = ("-e", "A=b c", "--user=1000:1001", "--workdir=/etc", "--hostname=box")

    assert podman.run(*flags, IMAGE, "sh", "-c", script).stdout.splitlines() == [
        "b c",
        "1000",
        "1001",
        "/etc",
        "box",
    ]


@pytest.mark.row("`-v`, read-write and read-only")
def test_volumes(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from outside\n")
    script = "cat /v/f; echo inside >/v/g; echo x >/ro/h"

    result = podman.run(
        "-v", f"{tmp_path}:/v", "-v", f"{tmp_path}:/ro:ro", IMAGE, "sh", "-c", script
    )

    assert result.stdout == "from outside\n"
    assert "Read-only file system" in result.stderr
    assert (tmp_path / "g").read_text() == "inside\n"
    assert not (tmp_path / "h").exists()


@pytest.mark.row("`--read-only`")
def test_read_only_root_with_its_temporary_directories(podman: Podman) -> None:
    script = "echo x >/x; echo y >/tmp/y && echo z >/run/z && cat /tmp/y /run/z"

    result = podman.run("--read-only", IMAGE, "sh", "-c", script)

    assert result.stdout == "y\nz\n"
    assert "can't create /x: Read-only file system" in result.stderr


@pytest.mark.row("`--tmpfs`", gvisor="starts empty")
def test_tmpfs_starts_with_what_was_there(podman: Podman) -> None:
    result = podman.run(
        "--tmpfs=/etc:size=1m", IMAGE, "sh", "-c", "cat /etc/passwd; df /etc"
    )

    assert "root:x:0:0" in result.stdout
    assert "1024" in result.stdout


@pytest.mark.row(
    "`--memory`, `--pids-limit`, `--cpus`, `--ulimit`",
    gvisor="not seen in the container",
)
def test_limits(podman: Podman) -> None:
    flags = ("--memory=256m", "--pids-limit=40", "--cpus=1", "--ulimit=nofile=100:200")
    pids = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"

    result = podman.run(*flags, IMAGE, "sh", "-c", f"ulimit -n; {pids}; {MEMORY}; true")

    assert result.stdout.split() == ["100", "40", str(256 << 20)], result.stderr


@only_ours
def test_limit_of_memory_is_what_free_shows(podman: Podman) -> None:
    result = podman.run("--memory=256m", IMAGE, "sh", "-c", "free -m | grep Mem")

    assert int(result.stdout.split()[1]) == 256


@pytest.mark.row(
    "`--memory`, `--pids-limit`, `--cpus`, `--ulimit`",
    gvisor="not seen in the container",
)
def test_shell_in_little_memory(podman: Podman) -> None:
    result = podman.run("--memory=16m", IMAGE, "sh", "-c", f"{MEMORY}; true")

    assert result.stdout == f"{16 << 20}\n"


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
def test_out_of_memory_is_told(podman: Podman, script: str, code: int, killed: str) -> None:
    flags = ("--name=oom", "--network=none", "--memory=16m")
    try:
        result = podman.call("run", *flags, IMAGE, "sh", "-c", script)

        assert result.returncode == code, result
        assert podman.ok("inspect", "--format", "{{.State.OOMKilled}}", "oom") == killed
    finally:
        podman.ok("rm", "--force", "oom")


@pytest.mark.row("`--preserve-fds`", gvisor="no such flag")
def test_preserved_descriptor(podman: Podman, tmp_path: Path) -> None:
    command = " ".join(podman.command)
    script = f"{command} run --rm --network=none --preserve-fds=1 localhost/bb sh -c 'echo x >&3'"

    subprocess.run(["sh", "-c", f"{script} 3>{tmp_path}/out"], check=True, timeout=TIMEOUT_S)

    assert (tmp_path / "out").read_text() == "x\n"


@pytest.mark.row("`--network=none`", gvisor="`ip addr` shows nothing")
def test_network_none_is_a_loopback(podman: Podman) -> None:
    result = podman.run(IMAGE, "ip", "-o", "addr")

    assert result.returncode == 0, result.stderr
    assert "127.0.0.1/8" in result.stdout
    assert "eth0" not in result.stdout


@pytest.mark.row("`run -it`, `exec -it`", gvisor="tty(1): not a tty")
def test_run_at_a_terminal(podman: Podman) -> None:
    result = podman.at_a_terminal(
        "run", "-it", "--rm", "--network=none", IMAGE, "sh", "-c", "tty; exit 4"
    )

    assert result.returncode == 4
    assert "/dev/pts/0" in result.stdout


@pytest.mark.row("`run -d`, `ps`, `inspect`, `logs`, `stop`, `start`")
def test_detached_container_is_listed_inspected_and_stopped(podman: Podman, running: str) -> None:
    assert podman.status(running).startswith("Up")
    state = json.loads(podman.ok("inspect", running))[0]["State"]
    assert state["Status"] == "running"
    assert Path(f"/proc/{state['Pid']}").exists()

    podman.ok("stop", running)

    assert podman.status(running).startswith("Exited (9)")
    assert podman.ok("logs", running) == "up\nbye"
    podman.ok("start", running)
    assert podman.status(running).startswith("Up")


@pytest.mark.row("`kill`, `wait`")
def test_kill(podman: Podman, running: str) -> None:
    podman.ok("kill", "--signal=KILL", running)

    podman.ok("wait", running)
    assert podman.status(running).startswith("Exited (137)")


@pytest.mark.row(
    "a program that a signal ends: 128 + n",
    gvisor="an init dies of SIGTERM, too",
)
@pytest.mark.parametrize(("flags", "script", "code"), SIGNALS)
def test_exit_code_tells_the_signal(
    podman: Podman, flags: tuple[str, ...], script: str, code: int
) -> None:
    assert podman.run(*flags, IMAGE, "sh", "-c", script).returncode == code


@pytest.mark.row("`exec`, with `-e`, `-w`, `-u`, `-d`")
def test_exec(podman: Podman, running: str) -> None:
    assert podman.ok("exec", "-i", running, "cat", stdin="through\n") == "through"
    assert podman.call("exec", running, "sh", "-c", "exit 6").returncode == 6
    assert podman.call("exec", running, "nope").returncode == 127
    script = "echo $Q; pwd; id -u"
    assert podman.ok(
        "exec", "-e", "Q=1", "-w", "/tmp", "-u", "5", running, "sh", "-c", script
    ).split() == ["1", "/tmp", "5"]
    podman.ok("exec", "-d", running, "sh", "-c", "echo made >/tmp/x; mv /tmp/x /tmp/y")
    end = time.monotonic() + TIMEOUT_S
    while podman.call("exec", running, "cat", "/tmp/y").stdout != "made\n":
        assert time.monotonic() < end


@pytest.mark.row("`run -it`, `exec -it`", gvisor="tty(1): not a tty")
def test_exec_at_a_terminal(podman: Podman, running: str) -> None:
    result = podman.at_a_terminal("exec", "-it", running, "sh", "-c", "tty; exit 3")

    assert result.returncode == 3
    assert "/dev/pts/" in result.stdout


@pytest.mark.row("`pause`, `unpause`")
def test_pause_and_unpause(podman: Podman, running: str) -> None:
    podman.ok("pause", running)
    assert podman.status(running) == "Paused"

    podman.ok("unpause", running)
    assert podman.ok("exec", running, "echo", "awake") == "awake"


@pytest.mark.row("`update`", gvisor="no such command")
def test_update_of_a_limit(podman: Podman, running: str) -> None:
    podman.ok("update", "--memory=300m", running)


@pytest.mark.row("`create`, `start --attach`")
def test_create_then_start_attached(podman: Podman) -> None:
    podman.ok("create", "--name=later", "--network=none", IMAGE, "sh", "-c", "echo now")

    assert podman.ok("start", "--attach", "later") == "now"
    podman.ok("rm", "later")


@pytest.mark.row("`--init`")
def test_init_reaps(podman: Podman) -> None:
    if not shutil.which("catatonit"):
        pytest.skip("needs catatonit")

    orphan = "sh -c 'true & echo $! >/tmp/pid'; while kill -0 $(cat /tmp/pid) 2>&-; do :; done"

    result = podman.run("--init", IMAGE, "sh", "-c", f"cat /proc/1/comm; {orphan}; echo gone")

    assert result.stdout.splitlines() == ["podman-init", "gone"], result.stderr


@pytest.mark.row("`--uidmap`", gvisor="does not start")
def test_users_of_a_container_are_others_on_the_host(podman: Podman, tmp_path: Path) -> None:
    os.chown(tmp_path, 100_000, 100_000)
    script = "cat /proc/self/uid_map; id -u; touch /x /v/made; stat -c %u /x /v/made"
    flags = ("--uidmap=0:100000:65536", "-v", f"{tmp_path}:/v")

    result = podman.run(*flags, IMAGE, "sh", "-c", script)

    assert result.stdout.split() == ["0", "100000", "65536", "0", "0", "0"], result.stderr
    assert (tmp_path / "made").stat().st_uid == 100_000


@pytest.mark.row(
    "a Unix socket of the host as a volume",
    gvisor="only with `--host-uds=open`",
)
def test_socket_of_the_host_as_a_volume(podman: Podman, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        (tmp_path / "log").chmod(0o666)
        log.settimeout(TIMEOUT_S)

        result = podman.run(
            "-v", f"{tmp_path}/log:/dev/log", IMAGE, "logger", "from", "inside"
        )

        assert result.returncode == 0, result.stderr
        assert log.recv(1000).endswith(b"from inside")


@only_ours
def test_device_of_the_host_is_refused_by_its_name(podman: Podman) -> None:
    result = podman.run("--device=/dev/kvm", IMAGE, "true")

    assert result.returncode == 126
    assert "/dev/kvm (c 10:232) is a device of the host" in result.stderr


@pytest.mark.row("`--privileged`")
def test_privileged_container_runs_without_them(podman: Podman) -> None:
    assert podman.run("--privileged", IMAGE, "echo", "up").stdout == "up\n"


@pytest.mark.row(
    "`top`",
    ours="one line for all of the container: use `exec CTR ps`, or `top` with options of ps(1)",
    gvisor="lists nothing",
)
def test_top_lists_what_runs_inside(podman: Podman, running: str) -> None:
    shown = podman.ok("top", running)

    assert "sleep 0.05" in shown or "trap" in shown


@only_ours
def test_top_shows_what_stands_for_the_container(podman: Podman, running: str) -> None:
    shown = podman.ok("top", running, "pid", "comm", "args").splitlines()

    assert len(shown) == 2
    assert "runsc: " in shown[1]


@pytest.mark.row("`stats`")
def test_stats_show_memory_and_processes(podman: Podman, running: str) -> None:
    form = "{{.MemUsage}} {{.PIDs}}"

    used, _, limit, processes = podman.ok(
        "stats", "--no-stream", "--format", form, running
    ).split()

    assert not used.startswith("0B")
    assert limit
    assert int(processes) >= 1


@pytest.mark.row("`restart`")
def test_restart(podman: Podman, running: str) -> None:
    before = podman.ok("inspect", "--format", "{{.State.Pid}}", running)

    podman.ok("restart", running)

    assert podman.status(running).startswith("Up")
    assert podman.ok("inspect", "--format", "{{.State.Pid}}", running) != before
    podman.logs(running, "up\nbye\nup")


@pytest.mark.row("`attach`")
def test_attach_to_what_reads(podman: Podman) -> None:
    script = "echo up; while read x; do echo got $x; [ $x = end ] && exit 7; done"
    podman.detached("reads", "-i", script=script)

    result = podman.call("attach", "reads", stdin="one\nend\n")

    code = podman.ok("wait", "reads")
    podman.remove("reads")
    assert (code, result.stdout.split("\n")[:2]) == ("7", ["got one", "got end"]), result.stderr


@pytest.mark.row(
    "`--security-opt=seccomp`",
    gvisor="only with `--oci-seccomp`",
)
@pytest.mark.parametrize(
    ("profile", "shown"),
    [
        ("unconfined", "Seccomp:\t0"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
        ]}, "not supported"),
    ],
)  # fmt: skip
def test_seccomp_profile(
    podman: Podman, tmp_path: Path, profile: str | dict[str, object], shown: str
) -> None:
    given = profile
    if not isinstance(profile, str):
        (tmp_path / "profile").write_text(json.dumps(profile))
        given = str(tmp_path / "profile")
    script = "grep Seccomp: /proc/self/status; mkdir /new 2>&1; true"

    result = podman.run(f"--security-opt=seccomp={given}", IMAGE, "sh", "-c", script)

    assert shown in result.stdout.lower() or shown in result.stdout, result


@pytest.mark.row("`--health-cmd`, `healthcheck run`")
def test_health_check_runs_inside(podman: Podman) -> None:
    check = "test -e /tmp/well"
    podman.detached("checked", f"--health-cmd={check}", "--health-interval=disable",
                    "--health-retries=1")  # fmt: skip
    try:
        assert podman.call("healthcheck", "run", "checked").returncode == 1
        podman.ok("exec", "checked", "touch", "/tmp/well")
        podman.ok("healthcheck", "run", "checked")
        form = "{{.State.Health.Status}}"
        assert podman.ok("inspect", "--format", form, "checked") == "healthy"
    finally:
        podman.remove("checked")
