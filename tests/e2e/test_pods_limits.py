"""Limits, and pause, of one container among several in a sandbox."""

from __future__ import annotations

import json
import time

from tests.e2e.bundle import Document
from tests.e2e.client import Client
from tests.e2e.pod import Pod, said


def test_limit_of_tasks_is_each_containers(pod: Pod) -> None:
    def limited(document: Document) -> None:
        document["linux"]["resources"] = {"pids": {"limit": 4}}

    first = pod.run("pause", "exec sleep 1000")
    second = pod.run("app", "exec sleep 1000", change=limited)
    bomb = "for i in 1 2 3 4 5 6; do sleep 1000 >/dev/null 2>&1 & done; echo all"

    refused = second.call("exec", "app", "sh", "-c", bomb)
    assert "can't fork" in refused.stderr
    assert first.ok("exec", "pause", "sh", "-c", bomb + "; kill %1 %2 %3 %4 %5 %6") == "all\n"
    stats = json.loads(second.ok("events", "--stats", "app"))
    assert stats["data"]["pids"]["limit"] == 4
    second.ok("update", "--pids-limit=50", "app")
    assert second.ok("exec", "app", "sh", "-c", bomb) == "all\n"


def test_limit_of_memory_is_each_containers(pod: Pod) -> None:
    def limited(document: Document) -> None:
        document["linux"]["resources"] = {"memory": {"limit": 64 << 20}}

    first = pod.run("pause", "exec sleep 1000")
    second = pod.run("app", "exec sleep 1000", change=limited)
    fill = "dd if=/dev/zero bs=%dM count=1 of=/dev/null 2>/dev/null; echo $?"

    assert second.ok("exec", "app", "cat", "/sys/fs/cgroup/memory.max") == f"{64 << 20}\n"
    assert second.ok("exec", "app", "sh", "-c", fill % 20) == "0\n"
    assert second.ok("exec", "app", "sh", "-c", fill % 200) == "137\n"
    assert first.ok("exec", "pause", "sh", "-c", fill % 200) == "0\n"
    stats = json.loads(second.ok("events", "--stats", "app"))["data"]["memory"]
    assert stats["usage"]["limit"] == 64 << 20
    events = second.ok("exec", "app", "cat", "/sys/fs/cgroup/memory.events")
    assert "oom_kill 1\n" in events
    assert "oom_kill 0\n" in first.ok("exec", "pause", "cat", "/sys/fs/cgroup/memory.events")


def test_quota_of_cpu_is_each_containers(pod: Pod) -> None:
    def limited(document: Document) -> None:
        document["linux"]["resources"] = {"cpu": {"quota": 10_000, "period": 100_000}}

    busy = "echo up; while :; do :; done"
    first = pod.run("pause", busy)
    second = pod.run("app", busy, change=limited)
    said(second, "app", "up")

    def used_ns(client: Client, name: str) -> int:
        stats = json.loads(client.ok("events", "--stats", name))
        return int(stats["data"]["cpu"]["usage"]["total"])

    before, began = used_ns(second, "app"), time.monotonic_ns()
    free = used_ns(first, "pause")
    while used_ns(first, "pause") < free + 1_000_000_000:
        pass
    used, passed = used_ns(second, "app") - before, time.monotonic_ns() - began

    assert 0 < used < passed * 0.1 + 2 * 10_000_000 + 50_000_000
    assert second.ok("exec", "app", "cat", "/sys/fs/cgroup/cpu.max") == "10000 100000\n"
    second.ok("pause", "app")
    second.ok("resume", "app")
    second.ok("update", "--cpu-quota=-1", "app")
    before = used_ns(second, "app")
    while used_ns(second, "app") < before + 300_000_000:
        pass
    second.ok("kill", "app", "KILL")


def test_pause_holds_one_container(pod: Pod) -> None:
    first = pod.run("pause", "while :; do echo x; sleep 0.01; done")
    second = pod.run("app", "while :; do echo x; sleep 0.01; done")
    said(second, "app", "x")

    second.ok("pause", "app")

    size = len(second.output("app"))
    before = len(first.output("pause"))
    while len(first.output("pause")) == before:
        time.sleep(0.001)
    assert len(second.output("app")) == size
    assert second.state("app")["status"] == "paused"
    assert first.state("pause")["status"] == "running"
    second.ok("resume", "app")
    while len(second.output("app")) == size:
        time.sleep(0.001)
