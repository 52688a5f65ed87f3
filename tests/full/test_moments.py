"""Each process of ours, killed at a random moment of each command.

A moment is a host call that others can notice, before which the victim gets SIGKILL
(`tests.e2e.killer`). The command under way ends, and says in a line why, if it failed; so does the
next one; then `delete --force` leaves nothing. RUNSC_TEST_MOMENTS: how many moments of each pair
(1); RUNSC_TEST_MOMENTS_SEED: the first seed (1). The name of a test has its seed.
RUNSC_TEST_MOMENTS_CYCLES: how many cycles of create, start, kill, delete (200).
"""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.e2e.killer import Plan, Report
from tests.full.aftermath import Scene, adopting, check_words, labels

FIRST = int(os.environ.get("RUNSC_TEST_MOMENTS_SEED", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("RUNSC_TEST_MOMENTS", "1")))

pytestmark = [
    pytest.mark.alike,
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
CREATED, RUNNING = ("create B C",), ("create B C", "start C")
STOPPED, PAUSED = (*RUNNING, "kill C KILL"), (*RUNNING, "pause C")
COMMANDS: dict[str, tuple[str, tuple[str, ...], set[str]]] = {
    "create": ("create B C", (), {"creating", "created", "stopped", ""}),
    "run": ("run B C", (), {"", "stopped"}),
    "run-d": ("run --detach B C", (), {"created", "running", "stopped", ""}),
    "start": ("start C", CREATED, {"created", "running"}),
    "exec": ("exec C echo hello", RUNNING, {"running"}),
    "exec-d": ("exec --detach C sleep 1000", RUNNING, {"running"}),
    "kill": ("kill C KILL", RUNNING, {"running", "stopped"}),
    "term": ("kill C TERM", RUNNING, {"running", "stopped"}),
    "delete": ("delete C", STOPPED, {"stopped", ""}),
    "delete-f": ("delete --force C", RUNNING, {"running", "stopped", ""}),
    "pause": ("pause C", RUNNING, {"running", "paused"}),
    "resume": ("resume C", PAUSED, {"running", "paused"}),
    "update": ("update --pids-limit=90 --memory=300M C", RUNNING, {"running"}),
    "ps": ("ps C", RUNNING, {"running"}),
    "events": ("events --stats C", RUNNING, {"running"}),
    "state": ("state C", RUNNING, {"running"}),
    "list": ("list", RUNNING, {"running"}),
    "egress": ("egress set C P", RUNNING, {"running"}),
    "checkpoint": ("checkpoint --leave-running I C", RUNNING, {"running"}),
    "checkpoint-end": ("checkpoint I C", RUNNING, {"running", "stopped"}),
}
"""Its words; what comes before it; what `state` may say when it was killed."""
NEXT = [
    "list", "ps C", "kill C TERM", "kill C KILL", "kill --all C KILL", "exec C true", "start C",
    "pause C", "resume C", "events --stats C", "update --pids-limit=80 C", "delete C",
    "create B C", "exec --detach C sleep 1000",
]  # fmt: skip
MAKERS = {"create", "run", "run-d"}
VICTIMS = ["command", "sentry", "gofer", "stand-in", "network"]
VITAL = {"sentry", "gofer", "stand-in"}
"""Without one of them there is no container."""
PAIRS = [
    (command, victim)
    for command in COMMANDS
    for victim in VICTIMS + ["oom"] * (command in MAKERS) + ["janitor"] * (command == "run")
    if command != "egress" and (command != "delete" or victim == "command")
]
ENDING = {"kill", "term", "delete", "delete-f", "checkpoint-end"}
LEAVING = COMMANDS.keys() - MAKERS - ENDING - {"start"}
"""After these the container runs, or is paused."""
STARTING = {"create", "run-d", "start"}
IN_A_POD = [
    (command, victim)
    for command in ("create", "run", "start", "exec", "kill", "delete-f", "pause", "update")
    for victim in VICTIMS + ["gofer-2", "oom"] * (command in MAKERS)
]
WITH_A_BROKER = [
    (command, victim)
    for command in ("create", "run", "run-d", "exec", "kill", "delete-f", "pause", "egress")
    for victim in ("command", "sentry", "dialer")
]
HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
counted: dict[str, Report] = {}
"""The calls of each command when nobody is killed."""


@pytest.fixture
def scene(
    tmp_path: Path, busybox: Path, platform: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    """In the end `delete --force` leaves nothing of it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with adopting():
        made = Scene(tmp_path, busybox, platform)
        yield made
        for name in sorted({"C", "S"} & made.names.keys()):
            assert made.ok(f"delete --force {name}") == ""
        made.check_nothing_left()


def _there(scene: Scene, name: str) -> dict[str, int]:
    """The processes at which the command is aimed."""
    if name in MAKERS:
        return {"sentry": scene.state("S")["sentryPid"]} if "S" in scene.names else {}
    found = {} if name == "delete" else scene.pids()
    if name == "egress":  # it makes another one
        del found["dialer"]
    return found


def _count(scene: Scene, name: str) -> Report:
    """What the command does when it is let alone."""
    words, before, _ = COMMANDS[name]
    hooks = "hooks" in scene.bundle.document
    key = f"{name} {scene.client.flags[-1]} {hooks} {len(scene.bundles)}"
    if key not in counted:
        scene.ok(*before)
        report, status, text = scene.traced(words, Plan(there=_there(scene, name), clock="sentry"))
        check_words(os.waitstatus_to_exitcode(status), text)
        counted[key] = report
        scene.ok("delete --force C")
    return counted[key]


def _moment(scene: Scene, name: str, victim: str, chance: random.Random) -> None:
    """Bring it about, look at what comes of it, and at what the next command says."""
    words, before, states = COMMANDS[name]
    if name == "run":
        scene.bundle.args("sh", "-c", "echo hello; exit 3")
    count = _count(scene, name)
    scene.ok(*before)
    there = _there(scene, name)
    by_role = labels(count.titles) | {role: role for role in there}
    own = by_role[victim]
    clock = own if count.calls.get(own) and chance.random() < 0.7 else "0"
    at = chance.randint(1, count.calls[clock])
    plan = Plan(there=there, clock=clock, at=at, victim=own)
    report, status, text = scene.traced(words, plan)
    code = os.waitstatus_to_exitcode(status)
    when = f"before {report.last} (call {at} of {clock})"
    print(f"{name}: {victim} {when}: {code} {text[:300]!r}")
    if victim != "command" or not report.killed:
        check_words(code, text)
    if victim in ("janitor", "oom"):
        assert code == (3 if name == "run" else 0)
    if victim == "command" and report.killed:
        assert code == -9
        word = scene.status()
        assert word in states
        if name in LEAVING:
            scene.ok(*["resume C"] * (word == "paused"))
            assert scene.ok("exec C echo alive") == "alive\n"
    elif victim in VITAL and report.killed and (
        name in LEAVING or (code == 0 and name in STARTING)
    ):
        scene.wait_until_stopped()
    after = chance.choice(NEXT)
    print("then", after, scene.call(after))
    scene.check_images()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("platform", ["kvm"])
@pytest.mark.parametrize(("name", "victim"), PAIRS)
def test_process_killed_at_a_moment_of_a_command(
    scene: Scene, name: str, victim: str, seed: int
) -> None:
    _moment(scene, name, victim, random.Random(f"{name} {victim} {seed}"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("platform", ["kvm"])
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("name", ["create", "run", "start"])
def test_process_killed_at_a_moment_of_a_command_with_hooks(
    scene: Scene, name: str, victim: str, seed: int
) -> None:
    scene.bundle.document["hooks"] = {phase: [{"path": "/bin/true"}] for phase in HOOKS}

    _moment(scene, name, victim, random.Random(f"hooks {name} {victim} {seed}"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("platform", ["unicorn"])
@pytest.mark.parametrize("victim", ["command", "sentry", "gofer"])
@pytest.mark.parametrize("name", ["create", "run", "exec", "kill"])
def test_process_killed_at_a_moment_on_unicorn(
    scene: Scene, name: str, victim: str, seed: int
) -> None:
    _moment(scene, name, victim, random.Random(f"unicorn {name} {victim} {seed}"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("platform", ["kvm"])
@pytest.mark.parametrize(("name", "victim"), IN_A_POD)
def test_process_of_a_further_container_killed_at_a_moment(
    scene: Scene, name: str, victim: str, seed: int
) -> None:
    scene.add_pod()

    _moment(scene, name, victim, random.Random(f"pod {name} {victim} {seed}"))

    if victim != "sentry":
        assert scene.ok("exec S echo alive") == "alive\n"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("platform", ["kvm"])
@pytest.mark.parametrize(("name", "victim"), WITH_A_BROKER)
def test_process_of_a_container_with_a_broker_killed_at_a_moment(
    scene: Scene, name: str, victim: str, seed: int
) -> None:
    with tempfile.TemporaryDirectory(dir="/run") as place, socket.socket(socket.AF_UNIX) as broker:
        broker.bind(f"{place}/sock")
        broker.listen()
        policy = Path(place, "egress.toml")
        policy.write_text(f'[[rule]]\naction = "allow"\nbroker = "{place}/sock"\n')
        scene.names["P"] = str(policy)
        scene.client.flags += ["--network=sandbox", f"--egress={policy}"]

        _moment(scene, name, victim, random.Random(f"broker {name} {victim} {seed}"))


TOGETHER = [
    ("create B C", "create B C"), ("start C", "start C"), ("kill C KILL", "delete --force C"),
    ("delete --force C", "delete --force C"), ("start C", "delete --force C"),
    ("create B C", "delete --force C"), ("pause C", "kill C KILL"),
    ("exec C true", "delete --force C"), ("exec C echo hello", "start C"), ("ps C", "kill C TERM"),
]  # fmt: skip
"""Commands about the same container at once."""
CYCLES = int(os.environ.get("RUNSC_TEST_MOMENTS_CYCLES", "200"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("platform", ["kvm"])
def test_cycles_by_four_at_a_time_leave_nothing(scene: Scene) -> None:
    """Of each fifth, two commands at a time are about the same container."""
    del scene.bundle.document["linux"]["cgroupsPath"]  # each has one of its own
    scene.words("")

    def cycle(number: int) -> str:
        name = f"{scene.id}-{number}"
        both = TOGETHER[number // 5 % len(TOGETHER)] if number % 5 == 0 else ()
        steps = [both] if both else [("create B C",), ("start C",), ("kill C KILL",)]
        if both and "create B C" not in both:
            steps.insert(0, ("create B C",))
        for step in steps:
            found = scene.at_once(*(each.replace("C", name) for each in step))
            assert both or found == [(0, "")], found
        assert scene.ok(f"delete --force {name}") == ""
        return name

    with ThreadPoolExecutor(4) as pool:
        names = list(pool.map(cycle, range(CYCLES)))

    for name in names:
        assert not list(Path("/sys/fs/cgroup").glob(f"**/{name}"))
