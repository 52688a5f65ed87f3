"""Containers of one sandbox with networks of their own: a stack for each, behind its interfaces."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.e2e.own_stack import ip
from tests.e2e.pod import Pod, joins, said

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
SERVE = "nc -l -p 7000 -e echo hello >/dev/null 2>&1 &"
ADDRESSES = "ip -o -4 addr show | awk '{ print $4 }'"


def _plugged(pod: Pod, first: str, second: str) -> None:
    """A veth between two of them, whose ends have 10.9.0.1 and 10.9.0.2."""
    pids = pod.pids[first], pod.pids[second]
    ip(pids[0], f"link add eth0 type veth peer name eth0 netns {pids[1]}")
    for last, pid in enumerate(pids, 1):
        ip(pid, f"addr add 10.9.0.{last}/24 dev eth0", "link set eth0 up")


def _shell(pod: Pod, name: str, script: str) -> str:
    return pod.client(name).ok("exec", name, "sh", "-c", script)


def _open(pod: Pod, name: str) -> int:
    """Descriptors of the Sentry."""
    state = json.loads((pod.client(name).root / name / "state.json").read_text())
    return len(os.listdir(f"/proc/{state['sentryPid']}/fd"))


def test_each_sees_its_own_addresses_and_they_talk_by_the_link(pod: Pod) -> None:
    pod.flags.append("--network=sandbox")
    pod.run("pause")
    pod.run("app")
    _plugged(pod, "pause", "app")

    assert _shell(pod, "pause", ADDRESSES).split() == ["127.0.0.1/8", "10.9.0.1/24"]
    assert _shell(pod, "app", ADDRESSES).split() == ["127.0.0.1/8", "10.9.0.2/24"]
    _shell(pod, "pause", SERVE)
    ask = "until nc 10.9.0.1 7000 </dev/null; do sleep 0.05; done"
    assert _shell(pod, "app", ask) == "hello\n"
    _shell(pod, "pause", SERVE)
    assert "refused" in pod.client("app").call("exec", "app", "nc", "127.0.0.1", "7000").stderr


def test_what_is_plugged_in_after_create_is_there_from_the_first_call_on(pod: Pod) -> None:
    pod.flags.append("--network=sandbox")
    pod.run("pause")
    script = f"{ADDRESSES}; nc 10.9.0.1 7000 </dev/null; exec sleep 1000"
    app = pod.create("app", script)
    _plugged(pod, "pause", "app")
    _shell(pod, "pause", SERVE + " until grep -q :1B58 /proc/net/tcp /proc/net/tcp6; do :; done")

    app.ok("start", "app")

    said(app, "app", "hello\n")
    assert app.output("app").split() == ["127.0.0.1/8", "10.9.0.2/24", "hello"]


def test_who_shares_the_network_of_a_further_one_is_in_its_stack(pod: Pod) -> None:
    pod.flags.append("--network=sandbox")
    pod.run("pause")
    pod.run("app")
    _plugged(pod, "pause", "app")
    pod.run("beside", change=joins(network=pod.path("app", "net")))

    assert _shell(pod, "beside", ADDRESSES).split() == ["127.0.0.1/8", "10.9.0.2/24"]
    _shell(pod, "app", SERVE)
    ask = "until nc 127.0.0.1 7000 </dev/null; do sleep 0.05; done"
    assert _shell(pod, "beside", ask) == "hello\n"


def test_nothing_of_its_network_is_left_when_it_has_ended(pod: Pod) -> None:
    pod.flags.append("--network=sandbox")
    pod.run("pause")
    opened = []
    for name in ("one", "two"):
        pod.run(name)
        _plugged(pod, "pause", name)
        assert sorted(_shell(pod, name, "ls /sys/class/net").split()) == ["eth0", "lo"]
        pod.clients.pop(name).ok("delete", "--force", name)
        while "eth0" in _shell(pod, "pause", "echo /sys/class/net/*"):  # ls looks at each, later
            time.sleep(0.001)  # the host takes a namespace away when it has time
        opened.append(_open(pod, "pause"))
    while _open(pod, "pause") > opened[0]:
        time.sleep(0.001)


def test_sandbox_without_a_network_adds_none_and_says_so(pod: Pod) -> None:
    pod.flags.append("--network=none")
    pod.run("pause")
    pod.flags[:] = ["--network=sandbox"]
    app = pod.run("app")

    assert "has a loopback interface alone" in app.log.read_text()
    assert _shell(pod, "app", "ls /sys/class/net") == "lo\n"
    _shell(pod, "app", SERVE)
    ask = "until nc 127.0.0.1 7000 </dev/null; do sleep 0.05; done"
    assert _shell(pod, "app", ask) == "hello\n"


def test_sandbox_with_a_policy_adds_none_and_says_so(pod: Pod, tmp_path: Path) -> None:
    """Nobody would judge what leaves there."""
    pytest.importorskip("dns")
    policy = tmp_path / "policy.toml"
    policy.write_text('default = "deny"\n')
    pod.flags += ["--network=sandbox", f"--egress={policy}"]
    pod.run("pause")
    app = pod.run("app")

    assert "has an egress policy" in app.log.read_text()
    assert _shell(pod, "app", "ls /sys/class/net") == "lo\n"
