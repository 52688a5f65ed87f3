"""Recordings as a sandbox, or who has taken one over, may have made them."""

from __future__ import annotations

from collections.abc import Iterable

from runsc.containers.sampling import Sample, message
from runsc.report.summary import Summary
from sentry.control.answers import Cost
from sentry.syscalls.registry import NUMBERS
from sentry.watch import messages as m
from sentry.watch.encoder import encoder
from sentry.watch.messages import MessageType as Type
from sentry.watch.sinks import HEADER

START_NS = 1_796_009_742_000_000_000
MARKUP = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


def told(kind: int, record: m.Record, dropped: int = 0) -> bytes:
    """A message."""
    return HEADER.pack(HEADER.size, kind, dropped) + encoder(type(record))(record)


def who(at_ms: float, pid: int = 1, name: str = "sh") -> m.ContextData:
    return m.ContextData(START_NS + int(at_ms * 1e6), pid, 0, pid, process_name=name)


def opened(at_ms: float, path: str, pid: int = 1, flags: int = 0, errno: int = 0) -> bytes:
    ended = m.Exit(0 if errno else 3, errno)
    return told(Type.SYSCALL_OPEN, m.Open(who(at_ms, pid), ended, 257, -100, "", path, flags))


def sample(at_ms: float, memory: int = 1 << 20) -> bytes:
    counts = {'memory_bytes{container="c"}': memory, 'tasks{container="c"}': 1, "page_faults": 5}
    calls = {"read": Cost(10, 50_000, 9_000), "write": Cost(1, 2_000, 2_000)}
    return message(Sample(START_NS + int(at_ms * 1e6), counts, calls, Cost(3, 900, 400), 10**9, 7))


def run() -> list[bytes]:
    """A shell that makes two processes; one fails, one is killed."""
    return [
        told(Type.CONTAINER_START, m.Start(who(0), "web", "/", ["/bin/sh", "-c", "work"])),
        told(Type.SENTRY_CLONE, m.CloneInfo(who(1), 2, 2)),
        told(Type.SENTRY_EXEC, m.ExecveInfo(who(2, 2), "/bin/cat", ["cat", "/etc/none"])),
        opened(3, "/etc/none", 2, errno=2),
        opened(4, "/tmp/out", 2, flags=0x241),
        told(Type.SENTRY_EXIT_NOTIFY_PARENT, m.ExitInfo(who(5, 2, "cat"), 1 << 8)),
        told(Type.SENTRY_CLONE, m.CloneInfo(who(6), 3, 3)),
        told(Type.SYSCALL_CONNECT, m.Connect(
            who(7, 3, "nc"), m.Exit(0, 111), 42, 3, "", b"\x02\0\x00P\x7f\0\0\x01" + bytes(8))),
        told(Type.OWN_EGRESS_DENIED, m.Egress(
            m.ContextData(START_NS + 8_000_000), "rule 1", ["x.org"], "10.0.0.1", 6, 80, 3, "nc")),
        told(Type.SENTRY_EXIT_NOTIFY_PARENT, m.ExitInfo(who(9, 3, "nc"), 9)),
        sample(10),
        told(Type.SENTRY_EXIT_NOTIFY_PARENT, m.ExitInfo(who(20), 0)),
    ]  # fmt: skip


def summed(messages: Iterable[bytes]) -> Summary:
    made = Summary(lambda number: NUMBERS.get(number, ""))
    for each in messages:
        made.add(each)
    return made
