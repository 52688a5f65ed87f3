"""What a stack knows of its sockets: those that are open, and no longer than they are."""

from __future__ import annotations

import gc
import inspect
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.poll import EPOLLIN
from sentry.abi.socket import AF_INET, AF_UNIX, IPPROTO_TCP, SOCK_RAW, SOCK_STREAM
from sentry.auth.credentials import Credentials
from sentry.errors import EINPROGRESS
from sentry.kernel.services import Services
from sentry.net.inet.raw import RawSocket
from sentry.net.inet.tcp import TcpSocket
from sentry.net.interfaces import Interface
from sentry.net.namespace import NetNamespace
from sentry.net.netlink.diag import _inet_sockets, _unix_sockets
from sentry.net.packet_socket import PacketSocket
from sentry.net.socket import Socket
from sentry.net.sockfs import socket_location
from sentry.net.stack import Stack
from sentry.net.tables import OF_USERS
from sentry.net.unix import UnixSocket
from sentry.vfs.vfs import Vfs

HERE = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 4000, bytes((127, 0, 0, 1)))
ABSTRACT = struct.pack("<H", AF_UNIX) + b"\0name"


@pytest.fixture
def caller() -> Iterator[Any]:
    """A program in a network of its own. Without the collector: what is left over stays."""
    gc.collect()
    gc.disable()
    loop = SimpleNamespace(call_soon=lambda call: call())
    kernel = SimpleNamespace(vfs=Vfs(None, None, lambda: 0), services=Services(), loop=loop)
    group = SimpleNamespace(tgid=1, job=None)
    stack = Stack(kernel, {})
    ns = SimpleNamespace(net=stack)
    yield SimpleNamespace(kernel=kernel, creds=Credentials(), group=group, net=stack, ns=ns)
    gc.enable()


def alive() -> int:
    return sum(isinstance(each, Socket) for each in gc.get_objects())


def tcp(caller: Any) -> Any:
    return TcpSocket(socket_location(caller), AF_INET, IPPROTO_TCP, caller.net).incref()


def done(result: Any) -> Any:
    """What an operation gives that does not have to wait."""
    if not inspect.iscoroutine(result):
        return result
    try:
        result.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it sleeps")


def test_socket_is_known_from_its_first_descriptor_to_its_last(caller: Any) -> None:
    stack = caller.net
    made = (
        UnixSocket(socket_location(caller), SOCK_STREAM, stack),
        TcpSocket(socket_location(caller), AF_INET, IPPROTO_TCP, stack),
        RawSocket(socket_location(caller), AF_INET, SOCK_RAW, IPPROTO_TCP, stack),
        PacketSocket(socket_location(caller), SOCK_RAW, 0, stack),
    )
    assert not (stack.sockets or stack.raw or stack.taps)
    for sock in made:
        sock.incref()
        sock.incref().decref()
    assert [*stack.sockets] == [*made]
    assert [*stack.raw, *stack.taps] == [*made[2:]]
    for sock in made:
        sock.decref()
    del sock, made
    assert not (stack.sockets or stack.raw or stack.taps) and alive() == 0


def shown(stack: Stack) -> list[str]:
    """The lines of /proc/net/tcp."""
    return [line for line in OF_USERS["tcp"](stack, None) if line]


def told(stack: Stack) -> list[Any]:
    """What sock_diag(7) has of TCP."""
    return [*_inet_sockets(stack, AF_INET, IPPROTO_TCP)]


def test_connection_that_nobody_accepted_is_shown_and_freed_with_its_listener(caller: Any) -> None:
    listener, client = tcp(caller), tcp(caller)
    done(listener.bind(caller, HERE))
    listener.listen(caller, 5)
    with pytest.raises(EINPROGRESS):
        done(client.connect(caller, HERE, True))
    assert listener.poll() & EPOLLIN and len(caller.net.sockets) == 2
    assert len(shown(caller.net)) == len(told(caller.net)) == 3
    listener.decref()
    del listener
    assert shown(caller.net) == [] and told(caller.net) == [client]
    client.decref()
    del client
    assert alive() == 0 and not len(caller.net.ports_of(IPPROTO_TCP))


def test_both_ends_of_a_unix_connection_are_freed_in_any_order(caller: Any) -> None:
    listener, client = (
        UnixSocket(socket_location(caller), SOCK_STREAM, caller.net) for _ in range(2)
    )
    for sock in (listener, client):
        sock.incref()
    done(listener.bind(caller, ABSTRACT))
    listener.listen(caller, 5)
    done(client.connect(caller, ABSTRACT, True))
    assert len(caller.net.sockets) == 2 and len([*_unix_sockets(caller.net)]) == 3
    server, _ = listener.try_accept(caller)
    server.incref()
    assert len(caller.net.sockets) == 3
    for sock in (client, listener, server):
        sock.decref()
    del sock, client, listener, server
    assert alive() == 0 and not caller.net.sockets


def test_interfaces_that_programs_made_end_with_the_last_who_holds_their_namespace(
    caller: Any,
) -> None:
    removed = []

    class Driver:
        def removed(self) -> None:
            removed.append(self)

    caller.kernel.loop.call_for_each = lambda items, act: [act(each) for each in items]
    namespace = NetNamespace(caller.kernel, {})
    caller.net = namespace.stack
    made: Any = Driver()
    caller.net.interfaces.insert(Interface(7, "made", driver=made))
    sock = tcp(caller)

    del namespace
    assert removed == [] and not caller.net.is_over

    sock.decref()
    del sock
    assert removed == [made] and caller.net.is_over
