"""The control protocol, both ways: a hostile client of a sandbox, a hostile sandbox of a client.

Of the Sentry it is all that `exec`, `ps`, `kill` can reach, over the kernel of a `tests.world`; of
the command line what reads a sandbox's answers and shows them.
"""

from __future__ import annotations

import array
import json
import os
import socket
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from runsc.commands import debug, events, stacks
from runsc.containers import listener, showing
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.launch.sandbox import Sandbox
from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.boot.further import Containers
from sentry.config import ProcessConfig, SandboxConfig
from sentry.control.answers import Cost, ProcessInfo, Profile, Stack, Stats
from sentry.control.operations import Operations
from sentry.control.oversight import MAX_PROFILE_NS
from sentry.control.protocol import Reply, Request
from sentry.control.server import ControlServer
from sentry.control.watchdog import Watchdog
from tests.fuzz.inside import Inside
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.fuzz.test_elf import good
from tests.world import Program

OPERATIONS = (
    "start", "kill", "ps", "state", "stats", "counts", "pause", "resume", "exec", "signal",
    "update", "resize", "go", "keep", "profile", "wait", "oom", "forward", "read", "file", "stacks",
    "strace", "log", "create", "expire", "",
)  # fmt: skip
NUMBERS = st.sampled_from(
    [0, 1, 2, 9, 15, 19, 64, 65, -1, -2, 1 << 31, 1 << 63, -(1 << 63)]
) | st.integers(-(1 << 65), 1 << 65)
TEXT = st.sampled_from(["", "/", "/p", "L3A=", "L3A", "eA==", "AA==", "\0", "x" * 5000]) | st.text(
    max_size=5
)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT | st.floats()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
B64 = st.sampled_from(["L3A=", "", "AA==", "eD15", "L25vbmU="])
IDS = st.sampled_from([0, 1, 1000, (1 << 32) - 1, 1 << 32, -1])
PROCESS = st.fixed_dictionaries(
    {"args": st.lists(B64, min_size=1, max_size=3)},
    optional={
        "env": st.lists(B64, max_size=3),
        "extra_env": st.lists(B64, max_size=3),
        "cwd": B64,
        "uid": IDS,
        "gid": IDS,
        "additional_gids": st.lists(IDS, max_size=3),
        "extra_gids": st.lists(IDS, max_size=3),
        "umask": NUMBERS,
        "extra_capabilities": NUMBERS,
        "rlimits": st.lists(
            st.fixed_dictionaries({"resource": NUMBERS, "soft": NUMBERS, "hard": NUMBERS}),
            max_size=2,
        ),
        "capabilities": st.dictionaries(
            st.sampled_from(["bounding", "effective", "permitted"]), NUMBERS, max_size=3
        ),
        "no_new_privileges": st.booleans(),
        "oom_score_adj": NUMBERS,
        "terminal": st.booleans(),
        "ignore_paused": st.booleans(),
        "job": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("wall_ns", "tasks"), NUMBERS)
        ),
    },
)
TRACE = st.fixed_dictionaries({}, optional={
    "on": st.booleans(), "others": st.booleans(), "limit": NUMBERS,
    "calls": st.lists(st.sampled_from(["read", "%file", "%none", ""]) | TEXT, max_size=3),
})  # fmt: skip
PLACE = st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 99])
CONTAINER = st.fixed_dictionaries(
    {
        "container_id": st.sampled_from(["world", "b", ""]),
        "process": PROCESS,
        "stdio": st.sampled_from([[0, 1, 2], [0, 0, 0], [2, 1, 0]]) | st.lists(PLACE, max_size=4),
        "gofer_fd": PLACE,
        "stand_in_fd": PLACE,
        "control_listener_fd": PLACE,
    },
    optional={
        "volumes_fd": PLACE,
        "network_fd": PLACE,
        "victim_fd": PLACE,
        "preserved": st.lists(PLACE, max_size=2),
        "root": st.fixed_dictionaries(
            {}, optional={"image_fd": PLACE, "is_image": st.booleans()}
        ),
        "shares": st.lists(
            st.tuples(st.sampled_from(["pid", "ipc", "uts", "network", "mount"]), TEXT | VALUES),
            max_size=2,
        ),
        "memory_limit": NUMBERS,
        "pids_limit": NUMBERS,
    },
)
FILE = st.fixed_dictionaries(
    {"do": st.sampled_from(
        ["stat", "make", "remove", "rename", "read", "write", "list", "watch", "diff", ""]
    )},
    optional={
        "path": B64,
        "target": B64,
        "uid": IDS,
        "gid": IDS,
        "groups": st.lists(IDS, max_size=2),
        "mode": NUMBERS,
        "offset": NUMBERS,
        "size": NUMBERS,
        "depth": NUMBERS,
        "follow": st.booleans(),
        "append": st.booleans(),
    },
)  # fmt: skip
FIELDS = st.fixed_dictionaries(
    {"op": st.sampled_from(OPERATIONS)},
    optional={
        "signal": NUMBERS,
        "pid": NUMBERS,
        "pids_limit": NUMBERS,
        "memory_limit": NUMBERS,
        "cpu_quota": NUMBERS,
        "cpu_period": NUMBERS,
        "cpu_weight": NUMBERS,
        "oom_kills": NUMBERS,
        "port": NUMBERS,
        "path": B64,
        "size": NUMBERS,
        "time_ns": NUMBERS,
        "all": st.booleans(),
        "debug": st.booleans(),
        "trace": TRACE | VALUES,
        "process": PROCESS | VALUES,
        "container": CONTAINER | VALUES,
        "file": FILE | VALUES,
    },
)
CREATE = st.builds(lambda container: {"op": "create", "container": container}, CONTAINER)
EXEC = st.builds(lambda process: {"op": "exec", "process": process}, PROCESS)
ORDER = st.builds(lambda file: {"op": "file", "file": file}, FILE)
LINES = st.one_of(
    (FIELDS | EXEC | CREATE | ORDER | VALUES).map(lambda value: json.dumps(value).encode() + b"\n"),
    st.binary(max_size=30),
    st.sampled_from([b"\n", b"[" * 100_000 + b"\n", b'{"op":"' + b"x" * 100_000, b"\xff\n"]),
)
FDS = st.lists(
    st.sampled_from(["/dev/null", "/dev/zero", "/", "pipe", "path", "memory", "socket"]),
    max_size=6,
) | st.just(["/dev/null"] * 3 + ["socket"] * 3)
Sent = list[tuple[bytes, list[str]]]
SENT = st.lists(st.tuples(LINES, FDS | st.just(["/dev/null"] * 3)), min_size=1, max_size=8)


def descriptors(kinds: list[str]) -> list[int]:
    made = []
    for kind in kinds:
        if kind == "pipe":
            ours, theirs = os.pipe()
            os.close(theirs)
            made.append(ours)
        elif kind == "socket":
            near, far = socket.socketpair()
            far.close()
            made.append(near.detach())
        elif kind == "memory":
            made.append(os.memfd_create("m"))
        else:
            made.append(os.open("/", os.O_PATH) if kind == "path" else os.open(kind, os.O_RDONLY))
    return made


def with_program(program: Program) -> None:
    """What an `exec` can start: "L3A=" is /p."""
    data = good(interpreter=False)
    fd = program.ok("open", b"/p", O_CREAT | O_WRONLY, 0o755)
    program.ok("write", fd, data, len(data))
    program.ok("close", fd)


def check_server(sent: Sent) -> list[bytes]:
    """What was answered."""
    answers = []
    with Inside(with_program) as inside:
        world = inside.world
        world.unwatch()
        watchdog = Watchdog(world.loop)
        config = SandboxConfig("world", ProcessConfig((b"x",)))
        containers = Containers(world.kernel, config, watchdog)
        operations = Operations(world.kernel, world.kernel.container, config, containers)
        ours, theirs = socket.socketpair()
        server = ControlServer(world.loop, operations, theirs.detach())
        with ours, closing(server):
            ours.setblocking(False)
            for data, kinds in sent:
                fds = descriptors(kinds)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                with suppress(BrokenPipeError, ConnectionResetError):
                    ours.sendmsg([data], rights if fds else [])
                for fd in fds:
                    os.close(fd)
                with bounded(data[:200]):
                    world.settle()
                with suppress(BlockingIOError, ConnectionResetError):
                    answers.append(ours.recv(1 << 20))
            with bounded("the end of what takes time"):
                world.loop.advance(time.monotonic_ns() + 2 * MAX_PROFILE_NS)
            with suppress(BlockingIOError, ConnectionResetError):
                answers.append(ours.recv(1 << 20))
            world.settle()
        operations.finish(0)
        watchdog.stop()
    return answers


def test_good_requests_come_as_far_as_they_can() -> None:
    """A program that `exec` starts, and a measurement of it: so the fuzzer gets there, too."""
    request = {"op": "exec", "process": {"args": ["L3A="]}}
    asked = json.dumps(request).encode() + b"\n"
    (started,) = check_server([(asked, ["/dev/null"] * 3)])
    assert json.loads(started)["pid"] > 1
    container: dict[str, Any] = {
        "container_id": "b", "process": {"args": ["L3A="]},
        "gofer_fd": 3, "stand_in_fd": 4, "control_listener_fd": 5,
    }  # fmt: skip
    asked = json.dumps({"op": "create", "container": container}).encode() + b"\n"
    (refused,) = check_server([(asked, ["/dev/null"] * 3 + ["socket"] * 3)])
    assert "the gofer process: " in json.loads(refused)["error"]
    container["root"] = {"is_image": True, "image_fd": 0}  # the Sentry's, not one that came
    asked = json.dumps({"op": "create", "container": container}).encode() + b"\n"
    (refused,) = check_server([(asked, ["/dev/null"] * 3 + ["socket"] * 3)])
    assert "error" in json.loads(refused)
    assert "the gofer process: " not in json.loads(refused)["error"]
    (profile,) = check_server([(b'{"op":"profile","time_ns":1000}\n', [])])
    assert json.loads(profile)["profile"]["elapsed_ns"] > 0


@pytest.mark.parametrize(("network", "told"), [
    ({"network": "host"}, "a network without a network process"),
    ({"network_fd": 6}, "a network without a network process"),
    ({"network": "host", "network_fd": 6}, "another kind of network"),
    ({"network": "x", "network_fd": 6}, "another kind of network"),
])  # fmt: skip
def test_network_that_the_sandbox_has_no_rights_for_is_refused(
    network: dict[str, object], told: str
) -> None:
    container = {
        "container_id": "b", "process": {"args": ["L3A="]},
        "gofer_fd": 3, "stand_in_fd": 4, "control_listener_fd": 5, **network,
    }  # fmt: skip
    asked = json.dumps({"op": "create", "container": container}).encode() + b"\n"
    fds = ["/dev/null"] * 3 + ["socket"] * (4 if "network_fd" in network else 3)
    (refused,) = check_server([(asked, fds)])
    assert told in json.loads(refused)["error"]


@for_a_while()
def test_requests_are_done_or_refused(seconds: float) -> None:
    explore(seconds, check_server, sent=SENT)


@kept("control")
def test_kept_request_is_done_or_refused(case: Sent) -> None:
    check_server(case)


# --- the other way


def struct_of(kind: Any, **others: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A message with numbers and texts in the places of its own, which may be of no sense."""
    fields = dict.fromkeys(kind.__struct_fields__, NUMBERS | NUMBERS | LEAVES) | others
    return st.fixed_dictionaries(fields)


SMALL = st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([0, 1, 1 << 70, 10**400])
COST = st.fixed_dictionaries(dict.fromkeys(Cost.__struct_fields__, SMALL))
PROFILE = st.fixed_dictionaries(dict.fromkeys(Profile.__struct_fields__, SMALL) | {
    "calls": st.dictionaries(TEXT, COST, max_size=3), "faults": COST, "gofer": COST,
    "counters": st.dictionaries(TEXT, SMALL, max_size=3),
})  # fmt: skip
PROCESSES = st.lists(st.fixed_dictionaries(dict.fromkeys(ProcessInfo.__struct_fields__, SMALL) | {
    "command": TEXT, "state": TEXT,
}), max_size=3)  # fmt: skip
STATS = st.fixed_dictionaries(dict.fromkeys(Stats.__struct_fields__, SMALL))
STACK = st.lists(st.fixed_dictionaries(dict.fromkeys(Stack.__struct_fields__, SMALL) | {
    "name": TEXT, "state": TEXT, "call": TEXT, "frames": st.lists(TEXT, max_size=2),
}), max_size=3)  # fmt: skip
STACKS = st.fixed_dictionaries({"tasks": STACK, "fibers": STACK, "threads": STACK})
REPLY = st.fixed_dictionaries({}, optional={
    "error": TEXT, "status": TEXT, "processes": PROCESSES, "pid": SMALL, "stats": STATS,
    "counts": st.dictionaries(TEXT, SMALL, max_size=3), "profile": PROFILE,
    "stacks": STACKS, "wait_status": SMALL,
})  # fmt: skip
EVENT = st.fixed_dictionaries(
    {"event": st.sampled_from(["ready", "error", "kept", "exited", "x"])},
    optional={"message": TEXT, "status": NUMBERS},
)
ANSWERS = st.lists(
    (REPLY | EVENT | struct_of(Reply) | VALUES).map(
        lambda value: json.dumps(value).encode() + b"\n"
    )
    | LINES,
    min_size=1,
    max_size=4,
).map(b"".join)
STATE = State("1.2.0", "c", "/", 1)


def test_a_process_has_one_line_whatever_it_calls_itself() -> None:
    show(Reply(processes=[ProcessInfo(1, 0, 0, "x\n0 7 1 0 00:00 ?  init\t\x1b[2J", "S")]))


def show(reply: Reply) -> None:
    """As the commands do."""
    for process in reply.processes:
        _, row, end = showing.processes([process]).split("\n")
        assert row.isprintable() and not end
    if reply.stats is not None:
        json.dumps(events.data(STATE, reply.stats))
    if reply.profile is not None:
        debug.lines(reply.profile)
    if reply.stacks is not None:
        shown = [*map(stacks.task, reply.stacks.tasks), *map(stacks.beside, reply.stacks.fibers)]
        assert all(line.isprintable() for lines in shown for line in lines)


def check_question(path: str, answer: bytes) -> None:
    with listener.listen(path) as listening:
        listening.setblocking(True)

        def serve() -> None:
            sock = listening.accept()[0]
            with sock, suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(answer)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1 << 16)

        served = threading.Thread(target=serve)
        served.start()
        try:
            with suppress(OSError, ValueError), bounded(answer[:200]):
                show(listener.ask(path, Request("ps"), 30))
        finally:
            served.join()
            os.unlink(path)


@for_a_while()
def test_answers_are_shown_or_refused(seconds: float, tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    explore(seconds, lambda answer: check_question(path, answer), answer=ANSWERS)


@kept("answers")
def test_kept_answer_is_shown_or_refused(case: bytes, tmp_path: Path) -> None:
    check_question(str(tmp_path / "control.sock"), case)


def check_start(said: bytes, step: str) -> None:
    """What the command line hears from the sandbox that it starts."""
    ours, theirs = socket.socketpair()
    pids = [os.fork() or os._exit(0) for _ in range(2)]
    sandbox = Sandbox(pids[0], pids[1], ours, None)
    try:
        with theirs, suppress(BlockingIOError):
            theirs.setblocking(False)
            theirs.sendall(said)
        with suppress(RuntimeFailure), bounded(said[:200]):
            getattr(sandbox, step)()
    finally:
        sandbox.abandon()


@for_a_while()
def test_what_a_sandbox_says_at_its_start_is_heard_or_refused(seconds: float) -> None:
    steps = st.sampled_from(["await_ready", "keep", "wait"])
    explore(seconds, check_start, said=ANSWERS, step=steps)
