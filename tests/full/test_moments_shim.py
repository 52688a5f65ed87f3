"""The shim and what it has made, killed at a random moment of each request.

See test_moments.py. Whoever asked gets an answer, an error, or the end of the connection; then
`delete`, as containerd calls it after a shim has died, leaves nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from runsc.shim import messages as m
from tests.e2e import processes
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.killer import Plan, Report
from tests.e2e.shim_client import NAMESPACE, Failed, Shim
from tests.full.aftermath import (
    NO_SENTENCE,
    PROGRAM,
    adopting,
    children,
    labels,
    reap_all,
    title,
)
from tests.full.test_moments import SEEDS

pytestmark = [
    pytest.mark.alike,
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a containerd"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


def _create(shim: Shim) -> object:
    request = m.CreateTask("c", str(shim.folder / "bundles" / "c"), options=shim.options)
    return shim.ask("Create", request, m.Pid)


def _begin(shim: Shim) -> object:
    return shim.ask("Start", m.Named("c"), m.Pid)


def _exec(shim: Shim) -> object:
    shim.exec("c", "e", "sleep", "1000")
    return shim.ask("Start", m.Named("c", "e"), m.Pid)


def _kill(shim: Shim) -> object:
    shim.do("Kill", m.Kill("c", "", signal.SIGKILL))
    return shim.wait("c")


def _delete(shim: Shim) -> object:
    return shim.ask("Delete", m.Named("c"), m.Deleted)


def _pause(shim: Shim) -> object:
    shim.do("Pause", m.Named("c"))
    return shim.do("Resume", m.Named("c"))


STEPS: dict[str, Callable[[Shim], object]] = {
    "create": _create, "start": _begin, "exec": _exec, "pause": _pause, "kill": _kill,
    "delete": _delete,
}  # fmt: skip
"""In this order."""
VICTIMS = ["shim", "worker", "sentry", "gofer", "stand-in", "network"]
PAIRS = [
    (name, victim)
    for name in STEPS
    for victim in VICTIMS
    if name != "delete" or victim in ("shim", "worker")
]
counted: dict[str, Report] = {}


@pytest.fixture
def shim(tmp_path: Path, busybox: Path) -> Iterator[Shim]:
    with adopting():
        made = Shim(tmp_path, busybox)
        yield made
        made.end()
        reap_all()
        assert made.containers() == []
        assert not os.path.exists(made.address.removeprefix("unix://"))
        assert processes.mounts(tmp_path) == []
        assert str(tmp_path) not in Path("/proc/net/unix").read_text()
        assert not list(Path("/sys/fs/cgroup").glob(f"**/{_cgroup(tmp_path)}"))


def _cgroup(folder: Path) -> str:
    return f"moment-{folder.name}-{os.getpid()}"


def _bundle(shim: Shim) -> Bundle:
    bundle = shim.bundle("c", "sh", "-c", PROGRAM)
    bundle.document["linux"]["cgroupsPath"] = f"/{_cgroup(shim.folder)}"
    return bundle


def _there(shim: Shim) -> dict[str, int]:
    """Processes by role, as far as there are any; a worker waits for the first container."""
    path = shim.root / NAMESPACE / "c" / "state.json"
    if not path.exists():
        return {"shim": shim.pid, "worker": children(shim.pid)[0]}
    state = json.loads(path.read_text())
    found = {"shim": shim.pid, "stand-in": state["pid"], "gofer": state["goferPid"]}
    network = 0
    while not network:  # if its worker ends just now, it becomes the shim's child
        network = next((pid for pid in _below(shim.pid) if title(pid) == "runsc-network: c"), 0)
    return found | {"sentry": state["sentryPid"], "network": network}


def _below(pid: int) -> Iterator[int]:
    """Its children, and theirs: a worker that has made a container may still be there."""
    for child in children(pid):
        yield child
        yield from _below(child)


def _traced(shim: Shim, name: str, plan: Plan) -> tuple[Report, str]:
    """A step below the killer: what that reports, and what came of it, if it was not done."""
    tracer = processes.killer(plan)
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == "ready\n"
    said = ""
    try:
        STEPS[name](shim)
    except Failed as error:
        said = str(error)
    except (OSError, AssertionError) as error:
        said = f"the connection: {error}"
    tracer.terminate()
    with tracer:  # a part of what it prints may have come with the first line
        report = msgspec.json.decode(tracer.stdout.read(), type=Report)
    return report, said


def _clock(name: str) -> str:
    return "worker" if name == "create" else "shim"


def _count(shim: Shim) -> None:
    """What each step makes of calls, if nobody is killed; the shim has ended then."""
    bundle = _bundle(shim)
    shim.start(bundle, "c")
    for name in STEPS:
        there = {} if name == "delete" else _there(shim)
        plan = Plan(there=there | {"shim": shim.pid}, clock=_clock(name))
        counted[name], said = _traced(shim, name, plan)
        assert not said
    shim.do("Shutdown", m.Shutdown("c"))
    reap_all()
    shutil.rmtree(bundle.path)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "victim"), PAIRS)
def test_process_killed_at_a_moment_of_a_request(
    shim: Shim, name: str, victim: str, seed: int
) -> None:
    if not counted:
        _count(shim)
    chance = random.Random(f"shim {name} {victim} {seed}")
    shim.start(_bundle(shim), "c")
    for before, step in STEPS.items():
        if before == name:
            break
        step(shim)
    there = {"shim": shim.pid} if name == "delete" else _there(shim)
    count = counted[name]
    if name == "create":
        while not (begun := children(there["worker"])):
            time.sleep(0.001)
        there["sentry"] = begun[0]
    by_role = labels(count.titles) | {"worker": "0"} | {role: role for role in there}
    own = by_role[victim]
    clock = own if count.calls.get(own) else _clock(name)
    at = chance.randint(1, count.calls[clock])
    plan = Plan(there=there, follow=_clock(name), clock=clock, at=at, victim=own)

    report, said = _traced(shim, name, plan)

    print(f"shim {name}: {victim} before {report.last} (call {at} of {clock}): {said!r}")
    assert not NO_SENTENCE.search(said.partition("the connection")[0]), said
    if victim == "shim":
        return
    for after in (partial(shim.state, "c"), partial(_kill, shim), partial(_delete, shim)):
        try:
            after()
        except Failed as error:
            print("then", error.code, error)
            assert not NO_SENTENCE.search(str(error))
