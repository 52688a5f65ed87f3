"""What the kernel tells of its own accord."""

from __future__ import annotations

import signal
import struct
from types import SimpleNamespace

from sentry.abi.signal import SA_RESTORER
from sentry.config import ProcessConfig
from sentry.net.egress.denials import Denial
from sentry.net.egress.flows import Flows, Key
from sentry.net.egress.policy import Policy, Target
from sentry.net.egress.policy import Program as Asker
from sentry.net.egress.rules import parse
from sentry.net.names.given import Given
from sentry.protobuf import decode
from sentry.wait.queue import WaitQueue
from sentry.watch import messages as m
from sentry.watch.messages import MessageType as Type
from tests.caller import HANDLER
from tests.unit.watch.conftest import Watched


def test_the_start_of_a_container_is_told_with_its_arguments(world: Watched) -> None:
    program = world.program()
    world.kernel.container.id = "web"
    process = ProcessConfig((b"/bin/sh", b"-c"), (b"A=1",), b"/srv", terminal=True)
    world.listen("container/start", context=("container_id", "group_id"))
    world.watch.started(program.task, process)
    who = m.ContextData(thread_group_id=program.task.group.tgid, container_id="web")
    assert world.records(m.Start) == [m.Start(who, "web", "/srv", ["/bin/sh", "-c"], [], True)]
    world.listen("container/start", optional=("env",), name="other")
    world.watch.started(program.task, process)
    assert world.records(m.Start)[0].env == ["A=1"]


def test_a_child_is_told_before_it_runs_and_its_end_twice(world: Watched) -> None:
    program = world.program()
    world.listen("sentry/clone", "sentry/task_exit", "sentry/exit_notify_parent",
                 context=("group_id",))  # fmt: skip
    child = program.fork()
    pid = child.task.group.tgid
    child.begin("exit_group", 5)
    world.settle()
    kinds, data = zip(*world.told(), strict=True)
    assert kinds == (
        Type.SENTRY_CLONE, Type.SENTRY_TASK_EXIT, Type.SENTRY_EXIT_NOTIFY_PARENT
    )  # fmt: skip
    made = decode(m.CloneInfo, data[0])
    assert (made.created_thread_id, made.created_thread_group_id) == (pid, pid)
    assert made.created_thread_start_time_ns > 10**18
    for each in data[1:]:
        ended = decode(m.ExitInfo, each)
        assert ended.exit_status == 5 << 8
        assert ended.context_data == m.ContextData(thread_group_id=pid)


def test_a_signal_is_told_with_who_sent_it(world: Watched) -> None:
    program = world.program()
    action = struct.pack("<4Q", HANDLER, SA_RESTORER, HANDLER, 0)
    program.ok("rt_sigaction", signal.SIGUSR1, action, 0, 8)
    world.listen("sentry/signal_delivered", context=("group_id",))
    pid = program.task.group.tgid
    program.begin("kill", pid, signal.SIGUSR1)
    who = m.ContextData(thread_group_id=pid)
    assert world.records(m.SignalInfo) == [m.SignalInfo(who, signal.SIGUSR1, 0, pid)]


def test_who_is_killed_for_want_of_memory_is_told(world: Watched) -> None:
    program = world.program()
    child = program.fork()
    world.listen("sentry/out_of_memory")
    world.kernel.tell_out_of_memory(child.task.group)
    assert world.records(m.OutOfMemory)[0].victim == child.task.group.tgid


class _Egress:
    """As much of it as is listened to."""

    def __init__(self) -> None:
        self.given = Given()
        rule = '[[rule]]\naction = "allow"\ncidrs = ["8.0.0.0/8"]\n'
        self.flows = Flows(Policy(parse(rule, "policy")), self.given)
        self.resolver = SimpleNamespace(forwarder=SimpleNamespace(given=self.given))
        self.denied = WaitQueue()
        self.flows.denials.on_add = self.denied.notify


def test_what_may_not_leave_is_told(world: Watched) -> None:
    egress = _Egress()
    world.watch.hear_egress(egress)  # type: ignore[arg-type]
    world.listen("sentry/egress_denied", context=("container_id",))
    world.kernel.container.id = "web"
    target = Target(6, bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]), 80)
    program = Asker(7, 0, "/bin/curl")
    egress.flows.denials.add(Denial(0, 10**9, ("a.example",), target, program, 2, "a rule"))
    who = m.ContextData(container_id="web")
    assert world.records(m.Egress) == [
        m.Egress(who, "a rule", ["a.example"], "192.0.2.1", 6, 80, 7, "/bin/curl")
    ]


def test_what_leaves_is_told_and_so_is_the_address_of_a_name(world: Watched) -> None:
    egress = _Egress()
    world.watch.hear_egress(egress)  # type: ignore[arg-type]
    world.listen("sentry/egress_allowed", "sentry/dns_answer")
    ip = bytes(10) + b"\xff\xff" + bytes([8, 8, 8, 8])
    egress.given.remember(ip, "a.example", 30 * 10**9, 10**9)
    key = Key(6, bytes(16), 1000, ip, 443)
    egress.flows.leaving(key, Asker(7, 0, "/bin/curl"), 10**9)
    (answered, answer), (allowed, flow) = world.told()
    assert (answered, allowed) == (Type.OWN_DNS_ANSWER, Type.OWN_EGRESS_ALLOWED)
    assert decode(m.DnsAnswer, answer) == m.DnsAnswer(None, "a.example", "8.8.8.8", 30)
    told = decode(m.Egress, flow)
    assert (told.address, told.port, told.names) == ("8.8.8.8", 443, ["a.example"])
    assert told.program == "/bin/curl"


def test_without_a_listener_nothing_is_made(world: Watched) -> None:
    program = world.program()
    world.watch.signalled(program.task, None)  # type: ignore[arg-type]
    world.watch.out_of_memory(program.task.group)
