"""Sandboxes that are noted on disk."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from runsc.api import states
from runsc.api.errors import SandboxError, SandboxNotFound
from runsc.api.order import ANNOTATION, ORDER, Now, Order
from runsc.containers import snapshots
from runsc.containers.container import Store
from runsc.containers.processes import start_time
from runsc.containers.state import State
from runsc.launch.policy import LEARN
from sentry.config import PolicyConfig
from sentry.control.orders import Decided
from sentry.faults import InjectRule, InjectState
from sentry.net.egress.rules import parse
from tests.unit.runsc.containers.test_snapshots import folder_of, manifest


def note(root: Path, name: str, **others: object) -> None:
    pid = os.getpid()
    state = State("1.2.0", name, "/", pid=pid, pid_start=start_time(pid), phase="running")
    Store(str(root)).create(state.changed(**others))


def test_those_that_were_made_so_and_run_are_found(tmp_path: Path) -> None:
    note(tmp_path, "b", annotations={ANNOTATION: "attached"}, foreground=True)
    note(tmp_path, "a", annotations={ANNOTATION: "detached"})
    note(tmp_path, "other")
    note(tmp_path, "stopped", annotations={ANNOTATION: "attached"}, pid=0)
    (tmp_path / "nothing").mkdir()

    found = states.made_so(str(tmp_path))
    assert [(state.id, states.is_detached(state)) for state in found] == [("a", True), ("b", False)]
    assert states.made_so(str(tmp_path / "none")) == []
    assert states.socket_of("/root", "x") == "/root/x/control.sock"
    assert states.root_of("/a/../b") == "/b"


def test_what_is_noted_where_others_write_is_not_believed(tmp_path: Path) -> None:
    note(tmp_path, "a", annotations={ANNOTATION: "detached"})
    tmp_path.chmod(0o777)

    with pytest.raises(SandboxError, match="others may write to it"):
        states.made_so(str(tmp_path))
    with pytest.raises(SandboxError, match="others may write to it"):
        states.load(str(tmp_path), "a")


def test_what_is_not_there_or_broken_says_so(tmp_path: Path) -> None:
    with pytest.raises(SandboxNotFound, match='no sandbox "x"'):
        states.load(str(tmp_path), "x")
    with pytest.raises(SandboxError, match="invalid container ID"):
        states.load(str(tmp_path), "../x")
    with pytest.raises(SandboxError, match="null"):
        states.made_so("a\0b")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "state.json").write_text("{}")
    with pytest.raises(SandboxError, match="missing required field"):
        states.load(str(tmp_path), "x")


BROKERS = """
[[rule]]
action = "allow"
names = ["api.internal"]
broker = "/tmp/runsc-0123456789abcdef/socket"
limits = { connections = 1 }

[[rule]]
action = "allow"
ports = [80]
broker = "/run/api.sock"
"""


def test_a_snapshot_has_what_was_decided_and_nobody_serves_its_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    order = Order(sandbox_id="s", state="/", policy="old")

    def found(name: str, text: str | None) -> Order:
        annotations = {ORDER: msgspec.json.encode(order).decode()}
        if text is not None:
            annotations[snapshots.DECIDED] = text
        folder_of(tmp_path / name, manifest(annotations=annotations))
        return states.order_of(str(tmp_path / name), trusted=True)

    fault = InjectState(InjectRule(("read",), "EIO"), 3, 1)
    decided = Decided(PolicyConfig("p", "new"), (fault,), BROKERS)
    kept = found("kept", msgspec.json.encode(decided).decode())
    assert states.made_alike(kept, order)
    assert (kept.now.policy, kept.now.injected, kept.now.used) == ("new", (fault,), ())
    served, other = parse(kept.now.egress or "", "").rule
    assert (served.action, served.broker, served.names) == ("deny", None, ("api.internal",))
    assert (other.action, other.broker) == ("allow", "/run/api.sock")
    assert found("older", None).now == Now()
    assert found("none", "{}").now == Now(policy="", injected=())
    assert states.now_of(Decided(PolicyConfig(learns=True))).policy == LEARN
    for number, broken in enumerate(("[]", '{"egress": "rule = 1"}', '{"injected": [{}]}')):
        with pytest.raises(SandboxError, match="damaged"):
            found(f"broken{number}", broken)


def test_nothing_of_the_process_is_changed(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        states.made_so(str(tmp_path))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
