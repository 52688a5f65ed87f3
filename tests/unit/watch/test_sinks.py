"""gVisor's wire, and lines of JSON."""

from __future__ import annotations

import json
import struct

from sentry.config import TraceSink
from sentry.protobuf import decode
from sentry.watch import messages as m
from sentry.watch import sinks
from sentry.watch.messages import MessageType
from sentry.watch.points import find
from tests.unit.watch.conftest import Watched


def test_a_message_has_a_header_and_how_many_were_lost(world: Watched) -> None:
    there = world.listen("syscall/close/enter")
    program = world.program()
    program.call("close", 9)
    sink = world.watch.sessions["Default"].sinks[0]
    sink._outbox.dropped = (1 << 32) + 7  # type: ignore[attr-defined]
    program.call("close", 9)
    world.watch.flush()
    first, second = there.recv(100), there.recv(100)
    assert struct.unpack_from("<HHI", first) == (8, MessageType.SYSCALL_CLOSE, 0)
    assert struct.unpack_from("<HHI", second) == (8, MessageType.SYSCALL_CLOSE, 7)
    assert decode(m.Close, second[8:]) == m.Close(None, None, 3, 9)


def test_a_line_of_json_says_which_point_and_leaves_out_what_is_zero(world: Watched) -> None:
    there = world.listen("syscall/close/exit", sink="json", context=("group_id",))
    program = world.program()
    program.call("close", 9)
    world.watch.flush()
    told = json.loads(there.recv(1000))
    assert told == {
        "point": "syscall/close/exit",
        "record": {
            "context_data": {"thread_group_id": program.task.group.tgid},
            "exit": {"errorno": 9}, "sysno": 3, "fd": 9,
        },
    }  # fmt: skip


def test_bytes_that_are_no_text_do_not_break_a_line(world: Watched) -> None:
    there = world.listen("syscall/openat/enter", sink="json")
    program = world.program()
    program.call("openat", -100, b"/a\xff\n\"", 0, 0)
    world.watch.flush()
    assert json.loads(there.recv(1000))["record"]["pathname"] == '/a\\xff\n"'


def test_a_sink_whose_listener_is_not_there_tells_nobody(world: Watched) -> None:
    sink = sinks.make(TraceSink("remote"), -1, world.loop)
    point = find("syscall/close/enter")
    assert point is not None
    sink.emitter(point)(m.Close())
    sink.flush()
    sink.close()
    assert (sink.name, sink.dropped, sink.taken) == ("null", 0, 0)
