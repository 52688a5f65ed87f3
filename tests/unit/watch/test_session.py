"""Sessions: what is refused, and what they do to the kernel."""

from __future__ import annotations

import socket

import pytest

from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.errors import EEXIST, EINVAL, ENOENT, ENOSPC
from sentry.kernel.identity import hears_fast_calls
from sentry.wait.steps import at_once
from sentry.watch import messages as m
from sentry.watch.session import MAX_SESSIONS
from tests.unit.watch.conftest import Watched

NULL = (TraceSink("null"),)


@pytest.mark.parametrize(
    ("point", "text"),
    [
        (TracePoint("sentry/none"), 'point "sentry/none" not found'),
        (TracePoint("syscall/read/enter", ("envv",)), 'field "envv" not found'),
        (TracePoint("syscall/read/enter", (), ("shoe",)), 'field "shoe" not found'),
        (TracePoint("sentry/exit_notify_parent", (), ("cwd",)), 'field "cwd" not found'),
    ],
)
def test_what_there_is_not_is_refused_by_name_or_left_out(
    world: Watched, point: TracePoint, text: str
) -> None:
    with pytest.raises(EINVAL) as caught:
        at_once(world.watch.create(TraceSession("a", (point,), NULL), []))
    assert text in str(caught.value)
    assert not world.watch.sessions
    at_once(world.watch.create(TraceSession("a", (point,), NULL, ignore_missing=True), []))
    assert list(world.watch.sessions) == ["a"]


def test_sessions_have_names_and_a_ceiling(world: Watched) -> None:
    for number in range(MAX_SESSIONS):
        config = TraceSession(str(number), (), NULL)
        world.watch.check(config)
        at_once(world.watch.create(config, []))
    with pytest.raises(EEXIST):
        world.watch.check(TraceSession("0", (), NULL))
    with pytest.raises(ENOSPC):
        world.watch.check(TraceSession("more", (), NULL))
    with pytest.raises(EINVAL):
        world.watch.check(TraceSession("", (), NULL))
    with pytest.raises(EINVAL):
        world.watch.check(TraceSession("0", (), (TraceSink("none"),)), force=True)
    with pytest.raises(ENOENT):
        world.watch.delete("none")


def test_a_session_takes_the_place_of_one_of_its_name_whose_listener_sees_the_end(
    world: Watched,
) -> None:
    program = world.program()
    first = world.listen("syscall/getppid/enter")
    config = TraceSession("Default", (TracePoint("syscall/getpgrp/enter"),), NULL)
    world.watch.check(config, force=True)
    at_once(world.watch.create(config, []))
    program.ok("getppid")
    assert first.recv(10) == b""


def test_all_sinks_of_a_session_are_told(world: Watched) -> None:
    program = world.program()
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    sinks = (TraceSink("remote", has_fd=True), TraceSink("null"), TraceSink("remote", has_fd=True))
    config = TraceSession("a", (TracePoint("syscall/getppid/exit"),), sinks)
    at_once(world.watch.create(config, [ours.detach() for ours, _ in pairs]))
    program.ok("getppid")
    world.watch.flush()
    assert [len(theirs.recv(100)) > 8 for _, theirs in pairs] == [True, True]
    for _, theirs in pairs:
        theirs.close()


def test_a_call_that_the_guest_answers_itself_comes_to_the_kernel_while_it_is_watched(
    world: Watched,
) -> None:
    assert not hears_fast_calls()
    world.listen("syscall/sysno/39/enter")
    assert hears_fast_calls()
    program = world.program()
    program.ok("getpid")
    assert world.records(m.Syscall)[0].sysno == 39
    world.watch.delete("Default")
    assert not hears_fast_calls()
