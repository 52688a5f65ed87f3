"""Who listens to what happens in a sandbox: from its start, while it runs, as a command, badly."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentry.syscalls import table  # noqa: F401  all declarations
from sentry.watch import messages as m
from sentry.watch.points import every
from sentry.watch.schemas import SCHEMAS
from tests.e2e.bundle import Bundle
from tests.e2e.client import Client, wait_for_end
from tests.e2e.listener import Listener, listening, session
from tests.e2e.pod import Pod
from tests.e2e.test_show import compiled
from tests.patience import TIMEOUT_S

WATCHED = Path(__file__).with_name("watched.c")
LOOP = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with listening(tmp_path / "listener") as made:
        yield made


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def _config(folder: Path, document: Any) -> str:
    path = folder / "session.json"
    path.write_text(json.dumps(document))
    return str(path)


def _flag(folder: Path, document: Any) -> list[str]:
    return [f"--pod-init-config={_config(folder, document)}"]


def test_from_the_start_a_listener_hears_of_programs_and_their_files(
    tmp_path: Path, bundle: Bundle, platform: str, listener: Listener
) -> None:
    who = ["container_id", "group_id", "process_name"]
    points = [
        {"name": "container/start", "context_fields": who},
        {"name": "sentry/execve", "optional_fields": ["binary_info"], "context_fields": who},
        {"name": "syscall/openat/exit", "context_fields": who},
        {"name": "syscall/open/exit", "context_fields": who},
        {"name": "sentry/task_exit", "context_fields": who},
        {"name": "sentry/exit_notify_parent"},
    ]
    bundle.args("/bin/sh", "-c", "/bin/cat /etc/none; exit 3")

    done = bundle.run(platform, flags=_flag(tmp_path, session(listener.path, *points)))

    assert done.returncode == 3
    told = listener.ended()
    start = told[0].record
    assert isinstance(start, m.Start)
    assert (start.id, start.args[:2], start.cwd, start.env) == ("test", ["/bin/sh", "-c"], "/", [])
    [execed] = [each.record for each in told if isinstance(each.record, m.ExecveInfo)]
    program = bundle.rootfs / "bin/cat"
    assert execed.argv == ["/bin/cat", "/etc/none"]
    assert execed.binary_sha256 == hashlib.sha256(program.read_bytes()).digest()
    assert execed.binary_mode & 0o111
    opened = [each.record for each in told if isinstance(each.record, m.Open)]
    missing = next(each for each in opened if each.pathname == "/etc/none")
    assert missing.exit == m.Exit(0, 2)
    assert missing.context_data is not None
    assert missing.context_data.process_name == "cat"
    assert missing.context_data.container_id == "test"
    ends = [each.point for each in told if isinstance(each.record, m.ExitInfo)]
    assert ends == ["sentry/task_exit", "sentry/exit_notify_parent", "sentry/task_exit"]
    assert told[-1].record == m.ExitInfo(
        m.ContextData(thread_group_id=1, container_id="test", process_name="sh"), 3 << 8
    )


@pytest.mark.root
def test_a_session_of_every_point_tells_each_that_gvisor_has(
    tmp_path: Path, bundle: Bundle, platform: str, listener: Listener
) -> None:
    program = compiled(WATCHED.read_text(), tmp_path, "-static")
    bundle.args("/program").document["mounts"] += [
        {"destination": "/program", "source": str(program), "options": ["bind", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
    ]
    points = [
        {"name": point.name, "optional_fields": point.optional, "context_fields": point.contexts}
        for point in every()
        if not point.name.startswith("syscall/")
        or point.name.split("/")[1] in {"sysno", *SCHEMAS}
    ]

    done = bundle.run(platform, flags=_flag(tmp_path, session(listener.path, *points)))

    assert (done.returncode, done.stderr) == (0, "")
    told = listener.ended()
    points_told = Counter(each.point for each in told)
    wanted = {"container/start", "sentry/clone", "sentry/execve", "sentry/exit_notify_parent",
              "sentry/task_exit"}  # fmt: skip
    wanted |= {f"syscall/{name}/{phase}" for name in SCHEMAS for phase in ("enter", "exit")}
    assert wanted - points_told.keys() == set()
    for each in told:
        who = each.record.context_data
        assert who is not None
        assert who.container_id == "test"
        assert 0 < who.thread_start_time_ns <= who.time_ns
        assert 0 < who.thread_group_start_time_ns <= who.thread_start_time_ns
        assert who.cwd or each.point == "sentry/exit_notify_parent"
        assert who.credentials == m.Credentials()
    _begins_before_it_ends(told)
    stored = next(each.record for each in told if each.point == "syscall/pipe2/exit")
    assert isinstance(stored, m.Pipe)
    assert stored.writer == stored.reader + 1
    replaced = [each.record for each in told if each.point == "syscall/execve/exit"]
    assert [(each.argv, each.envv) for each in replaced] == [(["true"], ["TEST=123"])]
    variables = {tuple(each.record.env) for each in told if isinstance(each.record, m.ExecveInfo)}
    assert variables == {("TEST=123",)}


def _begins_before_it_ends(told: list[Any]) -> None:
    """Each thread has one call at a time, told by its registers first, then by what they mean."""
    open_calls: dict[int, list[tuple[int, str]]] = {}
    for each in told:
        record = each.record
        if not isinstance(record, m.CallRecord):
            continue
        number: int = record.sysno  # type: ignore[attr-defined]
        kind = "raw" if each.point.startswith("syscall/sysno/") else "typed"
        calls = open_calls.setdefault(record.context_data.thread_id, [])  # type: ignore[union-attr]
        if record.exit is None:
            calls.append((number, kind))
            assert calls in ([(number, "raw")], [(number, "raw"), (number, "typed")])
        else:
            assert calls[0] == (number, kind), each.point
            calls.pop(0)


def test_sessions_begin_and_end_while_a_container_runs(
    tmp_path: Path, client: Client, listener: Listener
) -> None:
    pid = client.bundle.args("sh", "-c", LOOP) and client.create("c", "-d", command="run")
    pidfd = os.pidfd_open(pid)
    config = _config(tmp_path, session(listener.path, "sentry/clone"))
    assert client.ok("trace", "list", "c") == "SESSIONS (0)\n"
    made = client.ok("trace", "create", f"--config={config}", "c")
    assert made == 'Trace session "Default" created.\n'
    shown = client.ok("trace", "list", "c")
    assert shown == 'SESSIONS (1)\n"Default"\n\tSink: "remote", dropped: 0\n'
    again = client.error("trace", "create", f"--config={config}", "c")
    assert 'session "Default" already exists' in again
    client.ok("trace", "create", "--force", f"--config={config}", "c")
    listener.ended()
    while not listener.messages:
        time.sleep(0.001)
    assert client.ok("trace", "delete", "c") == 'Trace session "Default" deleted.\n'
    assert all(isinstance(each.record, m.CloneInfo) for each in listener.ended())
    assert 'session "Default" not found' in client.error("trace", "delete", "c")
    client.ok("kill", "c", "TERM")
    wait_for_end(pidfd)
    assert "not running" in client.error("trace", "list", "c")
    client.ok("delete", "c")


def test_what_proc_says_and_figures_are_told(client: Client) -> None:
    pid = client.bundle.args("sh", "-c", LOOP) and client.create("c", "-d", command="run")
    pidfd = os.pidfd_open(pid)
    head, *lines = client.ok("trace", "procfs", "c").splitlines()
    assert head == "PROCFS DUMP"
    told = [json.loads(line) for line in lines if line]
    shell = told[0]
    assert shell["status"]["pid"] == 1
    assert shell["args"] == ["sh", "-c", LOOP]
    assert shell["exe"].startswith("/bin/")
    assert {"cur", "max"} == set(shell["limits"]["RLIMIT_NOFILE"])
    assert any(variable.startswith("PATH=") for variable in shell["env"])
    figures = client.ok("metrics", "c")
    assert 'runsc_oom_kills{sandbox="c",container="c"} 0' in figures
    assert "# TYPE runsc_memory_bytes gauge" in figures
    client.ok("kill", "c", "KILL")
    wait_for_end(pidfd)
    client.ok("delete", "c")


def test_watch_shows_a_session_and_a_recording_of_it(tmp_path: Path, client: Client) -> None:
    client.bundle.args("sh", "-c", "while [ ! -e /dev/shm/go ]; do sleep 0.01; done; exec true")
    pid = client.create("c", "-d", command="run")
    pidfd = os.pidfd_open(pid)
    recording = tmp_path / "recording"
    with client.begin("trace", "watch", f"--record={recording}", "c") as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        assert "sentry/" in first or "syscall/" in first
        client.ok("exec", "--detach", "c", "touch", "/dev/shm/go")  # ends with the container
        wait_for_end(pidfd)
        rest = watching.stdout.read()
    assert watching.returncode == 0
    assert "sentry/execve" in rest
    assert 'binary_path="/bin/' in rest
    again = client.ok("trace", "watch", f"--replay={recording}")
    assert again == first + rest
    touched = client.ok("trace", "watch", f"--replay={recording}", "--program=touch",
                        "--show=syscall/open*/exit", "--format=json")  # fmt: skip
    names = [json.loads(line)["record"]["pathname"] for line in touched.splitlines()]
    assert "/dev/shm/go" in names
    client.ok("delete", "c")


def test_a_watch_that_was_killed_leaves_no_session(client: Client) -> None:
    client.bundle.args("sh", "-c", LOOP)
    client.create("c", "-d", command="run")
    with client.begin("trace", "watch", "--point=sentry/clone", "c") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        assert "SESSIONS (1)" in client.ok("trace", "list", "c")
        watching.kill()
    deadline = time.monotonic() + TIMEOUT_S
    while "SESSIONS (0)" not in client.ok("trace", "list", "c"):
        assert time.monotonic() < deadline
    client.ok("kill", "c")
    client.ok("delete", "--force", "c")


def test_a_listener_that_does_not_read_costs_records_alone(
    tmp_path: Path, bundle: Bundle, platform: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(tmp_path / "deaf"))
        sock.listen()
        bundle.args("sh", "-c", "i=0; while [ $i -lt 300 ]; do i=$((i+1)); : < /etc/passwd; done")
        points = [f"syscall/sysno/{number}/exit" for number in range(400)]
        document = session(tmp_path / "deaf", *points)
        command = bundle.command(platform, _flag(tmp_path, document))
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        client, _ = sock.accept()
        with client:
            client.recv(100)
            client.send(b"\x08\x01")
            error = running.communicate(timeout=120)[1]
        assert (running.returncode, error) == (0, "")


def test_a_listener_that_goes_away_leaves_the_program_alone(
    tmp_path: Path, bundle: Bundle, platform: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(tmp_path / "gone"))
        sock.listen()
        bundle.args("sh", "-c", "cat /etc/passwd > /dev/null; echo done")
        document = session(tmp_path / "gone", "syscall/openat/enter", "syscall/open/enter")
        command = bundle.command(platform, _flag(tmp_path, document))
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        client, _ = sock.accept()
        client.recv(100)
        client.send(b"\x08\x01")
        client.close()
        assert running.communicate(timeout=60) == ("done\n", "")


def test_without_a_listener_there_is_no_container_unless_that_is_to_be_ignored(
    tmp_path: Path, client: Client
) -> None:
    document = session(tmp_path / "none", "sentry/clone")
    client.flags += _flag(tmp_path, document)
    client.bundle.args("true").write()
    said = client.error("run", f"--bundle={client.bundle.path}", "c")
    assert said.endswith("sink remote: no such file or directory")
    assert client.remains() == []
    document["trace_session"]["sinks"][0]["ignore_setup_error"] = True
    _config(tmp_path, document)
    client.ok("run", f"--bundle={client.bundle.path}", "c")
    assert client.remains() == []


def test_a_point_that_there_is_not_is_named_and_there_is_no_container(
    tmp_path: Path, client: Client, listener: Listener
) -> None:
    document = session(listener.path, "sentry/clone", "sentry/teleport")
    client.flags += _flag(tmp_path, document)
    client.bundle.args("true").write()
    said = client.error("run", f"--bundle={client.bundle.path}", "c")
    assert 'point "sentry/teleport" not found' in said
    assert client.remains() == []


def test_lines_of_json_go_to_a_file(tmp_path: Path, bundle: Bundle, platform: str) -> None:
    path = tmp_path / "lines"
    document = session(tmp_path, "container/start", "sentry/task_exit")
    document["trace_session"]["sinks"] = [{"name": "json", "config": {"path": str(path)}}]
    bundle.args("sh", "-c", "exit 4")

    assert bundle.run(platform, flags=_flag(tmp_path, document)).returncode == 4

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["record"]["args"] == ["sh", "-c", "exit 4"]
    assert lines[-1] == {"point": "sentry/task_exit", "record": {"exit_status": 4 << 8}}


def test_a_pipe_nobody_reads_is_no_sink_that_holds_a_start_up(
    tmp_path: Path, client: Client
) -> None:
    os.mkfifo(tmp_path / "fifo")
    document = session(tmp_path, "container/start")
    document["trace_session"]["sinks"] = [
        {"name": "json", "config": {"path": str(tmp_path / "fifo")}}
    ]
    client.flags += _flag(tmp_path, document)
    client.bundle.args("true").write()
    assert "sink json" in client.error("run", f"--bundle={client.bundle.path}", "c")
    assert client.remains() == []


def test_metadata_needs_no_sandbox_and_is_in_gvisors_form(client: Client) -> None:
    lines = client.ok("trace", "metadata").splitlines()
    assert lines[0] == f"POINTS ({len(list(every()))})"
    assert lines[1].startswith("Name: container/start, optional fields: [env], context fields: [")
    assert lines[-3:] == ["Name: json", "Name: null", "Name: remote"]


def test_further_containers_of_a_sandbox_are_heard_by_their_ids(
    tmp_path: Path, pod: Pod, listener: Listener
) -> None:
    who = {"context_fields": ["container_id"]}
    points = [{"name": name} | who for name in ("container/start", "sentry/task_exit")]
    pod.flags += _flag(tmp_path, session(listener.path, *points))
    pod.run("pause")
    pod.run("app", "exit 7")
    ends = [m.ExitInfo(m.ContextData(container_id="app"), 7 << 8)]
    while [each.record for each in listener.told() if isinstance(each.record, m.ExitInfo)
           and each.record.context_data == m.ContextData(container_id="app")] != ends:  # fmt: skip
        time.sleep(0.001)
    starts = [each.record for each in listener.told() if isinstance(each.record, m.Start)]
    assert [(start.id, start.context_data) for start in starts] == [
        ("pause", m.ContextData(container_id="pause")), ("app", m.ContextData(container_id="app")),
    ]  # fmt: skip
