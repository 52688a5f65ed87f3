"""The same program watched in gVisor's sandbox and in ours: message by message both tell the same.

Debian's package of gVisor (July 2024) is the reference for the wire: its handshake, its order, its
fields.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sentry.syscalls import table  # noqa: F401  all declarations
from sentry.watch import messages as m
from sentry.watch.points import every
from sentry.watch.schemas import SCHEMAS
from tests.e2e.bundle import Bundle, execute
from tests.e2e.listener import listening, session
from tests.e2e.test_show import compiled
from tests.e2e.test_trace import WATCHED
from tests.full.runtimes import RUNTIMES

pytestmark = [pytest.mark.full, pytest.mark.root]
GVISORS = {"container/start", "sentry/clone", "sentry/execve", "sentry/exit_notify_parent",
           "sentry/task_exit"}  # fmt: skip
OURS = {"program", "ancestry"}
NOT_COMPARED = {
    "context_data": "numbers, times and ids are each sandbox's own",
    "fd_path": "descriptors of the host have other labels",
    "old_limit": "gVisor tells at the beginning what happens to be in that memory",
    "old_value": "the same",
    "cur_value": "the same; at the end it is a time that is left",
    "reader": "the same",
    "writer": "the same",
    "address": "the same, of accept",
    "new_tid": "a number in memory that nobody has written",
    "peer": "ours",
    "stack": "where the program's memory is",
    "tls": "the same",
    "created_thread_start_time_ns": "a time",
    "binary_sha256": "that release of gVisor's leaves it out",
    "wd": "gVisor tells an address",
}


def _session(endpoint: Path) -> dict[str, Any]:
    points = [
        {"name": point.name, "optional_fields": point.optional,
         "context_fields": [name for name in point.contexts if name not in OURS]}
        for point in every()
        if point.name in GVISORS or point.name.split("/")[1] in SCHEMAS
    ]  # fmt: skip
    document = session(endpoint, *points)
    config = document["trace_session"]["sinks"][0]["config"]
    config.update(retries=10_000, backoff="1ms", backoff_max="10ms")  # gVisor has no queue
    return document


def _watched(name: str, folder: Path, busybox: Path) -> dict[int, list[Any]]:
    """By thread, in the order of their first words, what is told of it."""
    folder.mkdir()
    program = compiled(WATCHED.read_text(), folder, "-static")
    bundle = Bundle(folder / "bundle", busybox).args("/program")
    bundle.document["mounts"] += [
        {"destination": "/program", "type": "bind", "source": str(program),
         "options": ["bind", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
    ]  # fmt: skip
    flags = ["--network=none", "--ignore-cgroups"] if name == "gvisor" else []
    threads: dict[int, list[Any]] = defaultdict(list)
    with listening(folder / "listener") as listener:
        path = folder / "session.json"
        path.write_text(json.dumps(_session(listener.path)))
        done = execute(
            [*RUNTIMES[name]().command, *flags, f"--root={folder / 'state'}",
             f"--pod-init-config={path}", "run", f"--bundle={bundle.write()}", "watched"]
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for told in listener.ended():
            who = told.record.context_data
            assert who is not None
            assert who.container_id == "watched"
            threads[who.thread_id].append((told.point, _compared(told.record)))
    return threads


def _compared(record: m.Record) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    return {name: value for name, value in fields.items() if name not in NOT_COMPARED and value}


def test_both_tell_the_same_of_the_same_program(tmp_path: Path, busybox: Path) -> None:
    theirs = _watched("gvisor", tmp_path / "gvisor", busybox)
    ours = _watched("ours", tmp_path / "ours", busybox)
    assert ours.keys() == theirs.keys()
    for thread, told in ours.items():
        assert told == theirs[thread]
