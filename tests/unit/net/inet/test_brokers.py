"""Connections that a policy hands on: begun, refused, given up, and changed policies meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any, cast

import pytest

from sentry.abi.socket import AF_INET, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM
from sentry.errors import EACCES, EAGAIN, ECONNREFUSED, ENETDOWN
from sentry.net.egress.rules import PolicyError
from sentry.net.host.dial import Wanted
from sentry.net.inet import brokers as module
from sentry.net.inet.address import Endpoint
from sentry.vfs import budget
from tests.unit.net.brokered import API, OTHER, POLICY, Brokered, brokered, mapped, place


@pytest.fixture
def one() -> Iterator[Brokered]:
    with brokered() as made:
        yield made


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_broker_hears_whom_a_connection_is_for_and_no_link_is_needed(one: Brokered) -> None:
    one.names(API, "x.api.org", "www.org")
    one.connect()
    (wanted,) = one.dialed.wanted
    assert (wanted.broker, wanted.address, wanted.port) == (0, mapped(API), 443)
    assert wanted.names == ("x.api.org", "api.org")
    task = one.program.task
    assert (wanted.pid, wanted.uid) == (task.pids.of(task.group.tgid), 0)
    one.connect(OTHER, 1)
    assert one.dialed.wanted[1].broker == 1 and not one.dialed.wanted[1].names
    assert one.egress.flows.counters.handed_on == len(one.egress.flows) == 2


def test_what_no_broker_gets_goes_by_a_link_or_nowhere(one: Brokered) -> None:
    assert one.refused(API, 80) == "ENETUNREACH"
    assert one.refused("198.51.100.1") == "ENETUNREACH"
    sock = one.program.ok("socket", AF_INET, SOCK_DGRAM, 0)
    sent = one.program.call("sendto", sock, b"x", 1, 0, place(API, 443), 16)
    assert sent == -errno.ENETUNREACH
    assert not one.dialed.wanted


def test_nameserver_is_nobodys_broker(one: Brokered) -> None:
    one.change('[[rule]]\naction = "allow"\nbroker = "/run/a.sock"')
    one.resolver._listed = (Endpoint(mapped("198.51.100.53"), 53),)
    assert one.refused("198.51.100.53", 53) == "ENETUNREACH"  # the resolver is, behind a link
    one.connect("198.51.100.53", 54)
    assert len(one.dialed.wanted) == 1


def test_program_sees_an_ordinary_connection(one: Brokered) -> None:
    fd, _ = one.connect()
    name, size = one.program.buffer(16), one.program.place(b"\x10\0\0\0")
    one.program.ok("getpeername", fd, name, size)
    assert one.program.read(name, 16) == place(API, 443)
    one.program.ok("getsockname", fd, name, size)
    port = int.from_bytes(one.program.read(name, 4)[2:])
    assert one.program.read(name, 16) == place("127.0.0.1", port)
    server = one.program.ok("socket", AF_INET, SOCK_STREAM, 0)
    assert one.program.call("bind", server, place("0.0.0.0", 443), 16) == 0  # nobody has it


@pytest.mark.parametrize("error", [ECONNREFUSED, EACCES, ENETDOWN])
def test_broker_that_is_not_there_is_a_refusal_and_in_the_log(
    one: Brokered, error: type[Exception]
) -> None:
    one.dialed.errors.append(cast(Any, error)("test"))
    assert one.refused() == "ECONNREFUSED"
    told = module.NO_DIALER if error is ENETDOWN else f"its broker: {error.__name__}"
    assert one.log == [(1, told)]
    assert not len(one.egress.flows)
    one.connect()


def test_full_queue_of_a_broker_is_tried_again(
    one: Brokered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_NS", 1)
    one.dialed.errors += [EAGAIN("full")] * module.MOST_TRIES
    one.connect()
    one.dialed.errors += [EAGAIN("full")] * (module.MOST_TRIES + 1)
    assert one.refused() == "ETIMEDOUT"
    assert one.log == [(1, module.FULL)]


def test_socket_that_is_closed_meanwhile_gets_no_stream(one: Brokered) -> None:
    before = open_descriptors()
    one.dialed.errors.append(EAGAIN("full"))
    fd = one.program.ok("socket", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
    connect = "connect", fd, place(API, 443), 16
    assert one.program.call(*connect) == -errno.EINPROGRESS
    one.world.settle()
    assert one.program.call(*connect) == -errno.EALREADY
    one.program.ok("close", fd)
    other = one.program.ok("socket", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
    assert one.program.call("connect", other, place(API, 443), 16) == -errno.EINPROGRESS
    one.program.ok("close", other)  # before anybody was asked
    one.world.settle()
    assert len(one.dialed.wanted) == 1
    assert not len(one.egress.flows) and open_descriptors() == before
    assert not one.world.vfs.budget.host_descriptors


def test_where_no_file_can_be_made_there_is_no_connection(
    one: Brokered, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    with monkeypatch.context() as full:
        dial = one.dialed.dial

        async def last(wanted: Wanted) -> int:
            full.setattr(budget, "MAX_FILES", 0)
            return await dial(wanted)

        full.setattr(one.dialed, "dial", last)
        fd, call = one.begin(API)
    with one.dialed.ends.pop() as end:
        assert call.result == -errno.ENFILE and end.recv(1) == b""
    assert one.log == [(1, "ENFILE")]
    one.program.ok("close", fd)
    assert not len(one.egress.flows) and not one.world.vfs.budget.host_descriptors
    assert open_descriptors() == before
    one.connect()


def test_quota_of_connections_counts(one: Brokered) -> None:
    one.change(POLICY.replace('a.sock"', 'a.sock"\nlimits = { open = 1, connections = 2 }'))
    fd, end = one.connect()
    assert one.refused() == "ECONNREFUSED"
    one.program.ok("close", fd)
    one.world.settle()
    assert end.recv(1) == b""
    one.connect()
    assert one.refused() == "ECONNREFUSED"
    assert one.log == [(1, "a quota")] * 2


def test_change_ends_what_is_not_allowed_or_another_brokers(one: Brokered) -> None:
    kept, first = one.connect(OTHER, 5)
    moved, second = one.connect()
    before = one.dialed
    one.change(POLICY.replace("/run/a.sock", "/run/c.sock"))
    assert before.is_closed
    assert one.receive(moved) == "ECONNABORTED" and second.recv(1) == b""
    assert one.log == [(1, "no longer by this broker")]
    first.send(b"on")
    assert one.receive(kept) == b"on"
    one.change("")
    assert one.receive(kept) == "ECONNABORTED" and first.recv(1) == b""
    assert not len(one.egress.flows) and not one.egress.has_brokers


def test_policy_of_now_says_who_is_a_broker(one: Brokered) -> None:
    task, target = cast(Any, one.program.task), Endpoint(mapped(API), 443)
    assert one.egress.broker_of(task, target) == "/run/a.sock"
    one.change('default = "allow"')
    assert one.egress.broker_of(task, target) is None and one.dialed.is_closed


def test_dialer_that_is_replaced_meanwhile_is_asked_no_more(one: Brokered) -> None:
    old = one.dialed

    async def ends(wanted: object) -> int:
        one.begin_change(POLICY)
        raise ENETDOWN("it has ended")

    cast(Any, old).dial = ends
    _, call = one.begin(API)
    assert call.result == 0 and len(one.dialed.wanted) == 1
    assert not one.log


def test_policy_that_changes_while_a_broker_is_dialed_counts(one: Brokered) -> None:
    old = one.dialed
    dial = old.dial

    async def slow(wanted: Any) -> int:
        made = await dial(wanted)
        one.begin_change("")
        return made

    cast(Any, old).dial = slow
    assert one.refused() == "ECONNREFUSED"
    assert old.ends[0].recv(1) == b""
    assert not len(one.egress.flows)


def test_policy_with_brokers_and_no_dialer_is_refused(one: Brokered) -> None:
    with pytest.raises(PolicyError, match="nobody who reaches them"):
        one.egress.change(POLICY, ())
    one.connect()
