"""TCP sockets of two hosts on a wire: what programs see, and what the stack keeps."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import nftables as nft
from sentry.abi import socket as abi
from sentry.abi.ip_tables import SO_ORIGINAL_DST
from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    MSG_OOB,
    MSG_PEEK,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOL_SOCKET,
)
from sentry.abi.socket import BPF_TCP_CLOSE as TCP_CLOSE
from sentry.abi.socket import BPF_TCP_ESTABLISHED as TCP_ESTABLISHED
from sentry.abi.socket import BPF_TCP_SYN_SENT as TCP_SYN_SENT
from sentry.errors import (
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAGAIN,
    ECONNREFUSED,
    ECONNRESET,
    EHOSTUNREACH,
    EINVAL,
    ENETUNREACH,
    ENOTCONN,
    EPIPE,
    ETIMEDOUT,
)
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.link import link
from sentry.net.netlink.diag import _inet_answer
from sentry.net.netlink.nfnetlink import netfilter_of
from sentry.net.tables import OF_USERS
from sentry.vfs import budget
from tests.unit.net.netfilter.blobs import entry, header, part, put, with_rules
from tests.unit.net.streams import ByUplink, Line, Streams, done, place, receive
from tests.unit.net.wired import INDEX, SECOND_NS, ip4, ip6, local6

FAMILIES = pytest.mark.parametrize("family", [AF_INET, AF_INET6])


@pytest.fixture(params=["link", "uplink"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    if request.param == "link":
        yield Line(Streams(1), Streams(2))
        return
    made = ByUplink(Streams(1), Streams(2))
    yield made
    made.close()


def table(host: Streams, name: str = "tcp") -> list[list[str]]:
    """/proc/net/tcp, in words."""
    return [each.split() for each in OF_USERS[name](host.stack, None) if each]


def error_of(sock: Any) -> int:
    number, sock.so_error = sock.so_error, 0
    return int(number)


@FAMILIES
def test_connection_is_made_and_carries_bytes_both_ways(line: Line, family: int) -> None:
    left, right = line.hosts
    _, client, server = line.connected(family)
    assert client.state == server.state == TCP_ESTABLISHED
    done(client.connect(left.caller, client.peer_address(), True))
    ours, theirs = (ip4(1), ip4(2)) if family == AF_INET else (ip6(1), ip6(2))
    assert server.peer_address() == client.local_address() == place(ours, client.local.port)
    assert client.peer_address() == server.local_address() == place(theirs, 8080)
    assert left.send(client, b"hello") == 5
    line.settle()
    assert server.poll() & EPOLLIN and server.available() == 5
    assert receive(server, flags=MSG_PEEK) == receive(server) == b"hello"
    with pytest.raises(EAGAIN):
        receive(server)
    assert right.send(server, b"back") == 4
    line.settle()
    assert receive(client) == b"back"


def test_large_transfer_is_whole_and_buffers_grow(line: Line) -> None:
    left, _ = line.hosts
    _, client, server = line.connected()
    data = bytes(range(256)) * 40000
    got, at = bytearray(), 0
    while len(got) < len(data):
        try:
            at += left.send(client, data[at : at + (1 << 18)])
        except EAGAIN:
            assert not client.poll() & EPOLLOUT
        line.settle()
        line.wait(SECOND_NS // 1000)
        while server.poll() & EPOLLIN:
            got += receive(server)
        line.settle()
    assert bytes(got) == data
    assert client.sndbuf > 87040 and client.poll() & EPOLLOUT
    assert line.hosts[0].tcp.used == line.hosts[1].tcp.used == 0


def test_end_of_each_way_is_told_and_address_is_held(line: Line) -> None:
    left, right = line.hosts
    _, client, server = line.connected()
    left.send(client, b"last")
    client.shutdown(SHUT_WR)
    line.settle()
    assert server.poll() & EPOLLRDHUP and not server.poll() & EPOLLHUP
    assert receive(server) == b"last" and receive(server) == b""
    with pytest.raises(EPIPE):
        left.send(client, b"x")
    assert right.send(server, b"still") == 5
    line.settle()
    assert receive(client) == b"still"
    server.decref()
    line.settle()
    assert receive(client) == b"" and client.poll() & EPOLLHUP
    port = client.local.port
    client.decref()
    assert [row[3] for row in table(left)] == ["06"]
    other = left.socket()
    with pytest.raises(EADDRINUSE):
        done(other.bind(left.caller, place(bytes(4), port)))
    line.wait(61 * SECOND_NS)
    assert not left.tcp.left and not len(left.tcp.endpoints.time_wait)
    assert not left.tcp.engines and not right.tcp.engines


def test_port_that_nobody_has_refuses(line: Line) -> None:
    left, _ = line.hosts
    client = left.socket()
    left.begin(client, place(ip4(2), 8081))
    assert client.state == TCP_SYN_SENT
    line.settle()
    assert client.poll() & (EPOLLERR | EPOLLHUP) == EPOLLERR | EPOLLHUP
    with pytest.raises(ECONNREFUSED):
        done(client.connect(left.caller, place(ip4(2), 8081), True))
    assert not left.tcp.engines and not left.stack.ports_of(IPPROTO_TCP).at(client.local.port)
    line.hosts[1].listen(8081)
    left.begin(client, place(ip4(2), 8081))
    line.settle()
    done(client.connect(left.caller, place(ip4(2), 8081), True))


def test_ways_that_lead_nowhere(line: Line) -> None:
    left, _ = line.hosts
    for target, error in (
        (place(bytes((192, 0, 2, 1)), 8080), ENETUNREACH),
        (place(ip4(255), 8080), ENETUNREACH),
        (place(local6(2), 8080), EINVAL),
    ):
        client = left.socket(AF_INET if len(target) == 16 else AF_INET6)
        with pytest.raises(error):
            done(client.connect(left.caller, target, True))
        assert not client.has_port
    client = left.socket()
    done(client.bind(left.caller, place(bytes((127, 0, 0, 1)), 0)))
    with pytest.raises(EINVAL):
        done(client.connect(left.caller, place(ip4(2), 8080), True))
    client = left.socket()
    left.begin(client, place(ip4(77), 8080))
    line.settle()
    line.wait(5 * SECOND_NS)
    assert error_of(client) == EHOSTUNREACH.number


def test_silence_is_a_time_out(line: Line) -> None:
    left, right = line.hosts
    client = left.socket()
    left.option(client, IPPROTO_TCP, abi.TCP_SYNCNT, 2)
    line.hosts = (left,)
    left.link.neighbours4.set_static(ip4(2), right.link.hardware)
    left.begin(client, place(ip4(2), 8080))
    line.wait(60 * SECOND_NS)
    assert error_of(client) == ETIMEDOUT.number and client.state == TCP_CLOSE


def test_reset_reaches_both_sides(line: Line) -> None:
    left, right = line.hosts
    _, client, server = line.connected()
    server.linger = (1, 0)
    server.decref()
    line.settle()
    assert client.state == TCP_CLOSE and client.poll() & EPOLLERR
    with pytest.raises(ECONNRESET):
        receive(client)
    assert receive(client) == b""
    assert not left.tcp.engines and not right.tcp.engines and not right.tcp.left


def test_unread_bytes_make_a_close_a_reset(line: Line) -> None:
    left, _ = line.hosts
    _, client, server = line.connected()
    left.send(client, b"unread")
    line.settle()
    server.decref()
    line.settle()
    assert error_of(client) == ECONNRESET.number


def test_connection_that_is_dissolved_is_reset_and_can_begin_anew(line: Line) -> None:
    left, right = line.hosts
    listener, client, server = line.connected()
    done(client.connect(left.caller, bytes(16), True))
    line.settle()
    assert error_of(server) == ECONNRESET.number and client.state == TCP_CLOSE
    assert left.stack.counters["Tcp.CurrEstab"] == right.stack.counters["Tcp.CurrEstab"] == 0
    error_of(client)
    with pytest.raises(ENOTCONN):
        client.peer_address()
    left.begin(client, place(ip4(2), 8080))
    client.shutdown(SHUT_RDWR)
    assert client.state == TCP_CLOSE
    error_of(client)
    left.begin(client, place(ip4(2), 8080))
    line.settle()
    assert right.accept(listener).state == TCP_ESTABLISHED


def test_listener_is_reached_by_both_ways_and_has_one_backlog(line: Line) -> None:
    left, right = line.hosts
    listener = right.listen(8080, backlog=1)
    near = right.socket()
    right.begin(near, place(ip4(2), 8080))
    right.soon.pop()()
    far = [left.socket() for _ in range(2)]
    for each in far:
        left.begin(each, place(ip4(2), 8080))
        line.settle()
    assert [sock.queues() for sock in (listener,)] == [(2, 1)]
    peers = [right.accept(listener).peer_address()[4:8] for _ in range(2)]
    assert peers == [ip4(2), ip4(1)]
    line.wait(5 * SECOND_NS)
    assert right.accept(listener).remote.port == far[1].local.port


def test_connection_for_which_no_file_may_be_open_comes_later(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = line.hosts
    listener, client = right.listen(8080), left.socket()
    monkeypatch.setattr(budget, "MAX_FILES", right.stack.kernel.vfs.budget.anonymous)
    left.begin(client, place(ip4(2), 8080))
    line.settle()
    assert listener.queues() == (0, 8) and not right.tcp.engines
    monkeypatch.undo()
    line.wait(5 * SECOND_NS)
    assert right.accept(listener).state == TCP_ESTABLISHED


def test_listener_that_closes_resets_what_nobody_accepted(line: Line) -> None:
    left, right = line.hosts
    listener, client = right.listen(8080), left.socket()
    left.begin(client, place(ip4(2), 8080))
    line.settle()
    listener.decref()
    line.settle()
    assert error_of(client) == ECONNRESET.number
    assert not right.tcp.engines and not len(right.stack.ports_of(IPPROTO_TCP))
    again = left.socket()
    left.begin(again, place(ip4(2), 8080))
    line.settle()
    assert error_of(again) == ECONNREFUSED.number


def test_listeners_that_share_a_port_and_those_of_an_interface(line: Line) -> None:
    left, right = line.hosts
    many = []
    for _ in range(4):
        sock = right.socket()
        right.option(sock, SOL_SOCKET, SO_REUSEPORT, 1)
        done(sock.bind(right.caller, place(bytes(4), 8080)))
        sock.listen(right.caller, 64)
        many.append(sock)
    for _ in range(40):
        left.begin(left.socket(), place(ip4(2), 8080))
    line.settle()
    counts = [sock.queues()[0] for sock in many]
    assert sum(counts) == 40 and min(counts) > 0
    only_lo, only_link = right.listen(8081), right.listen(8082)
    right.option(only_lo, SOL_SOCKET, abi.SO_BINDTOIFINDEX, 1)
    right.option(only_link, SOL_SOCKET, abi.SO_BINDTOIFINDEX, INDEX)
    for port, works in ((8081, False), (8082, True)):
        far, near = left.socket(), right.socket()
        left.begin(far, place(ip4(2), port))
        right.begin(near, place(ip4(2), port))
        right.soon.pop()()
        line.settle()
        assert (far.state == TCP_ESTABLISHED, near.state == TCP_ESTABLISHED) == (works, not works)


def test_dual_listener_has_connections_of_both_families(line: Line) -> None:
    left, right = line.hosts
    listener = right.listen(8080, AF_INET6)
    left.begin(left.socket(), place(ip4(2), 8080))
    line.settle()
    assert right.accept(listener).remote.ip[:12] == MAPPED
    six = left.socket(AF_INET6)
    raw = bytearray(place(local6(2), 8080))
    raw[24:28] = struct.pack("<I", INDEX)
    left.begin(six, bytes(raw))
    line.settle()
    assert right.accept(listener).remote == Endpoint(local6(1), six.local.port)


def test_urgent_byte_has_a_mark_and_a_signal(line: Line) -> None:
    left, _ = line.hosts
    _, client, server = line.connected()
    assert left.send(client, b"abc!", MSG_OOB) == 4
    assert left.send(client, b"def") == 3
    line.settle()
    assert server.poll() & EPOLLPRI
    assert receive(server) == b"abc" and server.at_mark()
    assert receive(server, 1, MSG_OOB) == b"!"
    assert not server.poll() & EPOLLPRI and receive(server) == b"def"
    with pytest.raises(EINVAL):
        receive(server, 1, MSG_OOB)


def test_read_at_an_urgent_mark_passes_it_though_nothing_is_behind(line: Line) -> None:
    left, _ = line.hosts
    _, client, server = line.connected()
    left.send(client, b"!", MSG_OOB)
    line.settle()
    assert receive(server, 1, MSG_OOB) == b"!" and server.at_mark()
    for flags, is_there in ((MSG_PEEK, True), (0, False)):
        with pytest.raises(EAGAIN):
            receive(server, 1, flags)
        assert server.at_mark() == is_there
    left.send(client, b"more")
    line.settle()
    assert not server.at_mark() and receive(server, 9) == b"more"


def test_options_reach_the_engine(line: Line) -> None:
    left, right = line.hosts
    listener = right.listen(8080)
    right.option(listener, IPPROTO_TCP, abi.TCP_MAXSEG, 700)
    client = left.socket()
    left.option(client, SOL_SOCKET, abi.SO_RCVBUF, 65536)
    left.begin(client, place(ip4(2), 8080))
    line.settle()
    server = right.accept(listener)
    mss = struct.unpack("<i", client.option(left.caller, IPPROTO_TCP, abi.TCP_MAXSEG, 4))[0]
    assert mss == 700 - 12
    assert client.engine.connection.tuning.rcvbuf == client.rcvbuf == 131072
    left.option(client, IPPROTO_TCP, abi.TCP_CORK, 1)
    left.send(client, b"held")
    line.settle()
    assert not server.poll() & EPOLLIN and client.unsent() == client.never_sent() == 4
    left.option(client, IPPROTO_TCP, abi.TCP_CORK, 0)
    line.settle()
    assert receive(server) == b"held"
    line.wait(SECOND_NS)
    assert client.unsent() == 0
    left.option(client, SOL_SOCKET, abi.SO_KEEPALIVE, 1)
    left.option(client, IPPROTO_TCP, abi.TCP_KEEPIDLE, 10)
    left.option(client, IPPROTO_TCP, abi.TCP_KEEPINTVL, 5)
    left.option(client, IPPROTO_TCP, abi.TCP_KEEPCNT, 2)
    line.hosts = (left,)
    line.wait(40 * SECOND_NS)
    assert error_of(client) == ETIMEDOUT.number


def test_connection_is_deferred_until_there_are_bytes(line: Line) -> None:
    left, right = line.hosts
    listener, client = right.listen(8080), left.socket()
    right.option(listener, IPPROTO_TCP, abi.TCP_DEFER_ACCEPT, 5)
    left.begin(client, place(ip4(2), 8080))
    line.settle()
    assert client.state == TCP_ESTABLISHED and not listener.poll()
    left.send(client, b"now")
    line.settle()
    assert receive(right.accept(listener)) == b"now"


def test_tables_and_diagnostics_show_it(line: Line) -> None:
    left, right = line.hosts
    _, client, server = line.connected()
    assert [row[3] for row in table(right)] == ["0A", "01"]
    assert table(left)[0][1:3] == table(right)[1][2:0:-1]
    info = client.option(left.caller, IPPROTO_TCP, abi.TCP_INFO, 256)
    assert info[0] == TCP_ESTABLISHED and len(info) == 248
    assert struct.unpack_from("<I", info, 16) == (1448,)
    assert _inet_answer(client, AF_INET, 0xFF, None)[1][1] == TCP_ESTABLISHED
    server.decref()
    client.decref()
    line.settle()
    assert [row[3] for row in table(right)] == ["0A", "06"]
    assert right.stack.counters["Tcp.CurrEstab"] == left.stack.counters["Tcp.CurrEstab"] == 0


def test_way_that_becomes_narrower_is_followed(line: Line) -> None:
    left, right = line.hosts
    _, client, server = line.connected()
    left.interface.mtu = right.interface.mtu = 1300
    left.send(client, bytes(10000))
    line.settle()
    line.wait(SECOND_NS)
    assert client.engine.connection.mtu == 1300 and len(receive(server)) == 10000


def test_flood_of_syns_leaves_no_more_than_the_backlog(line: Line) -> None:
    left, right = line.hosts
    listener = right.listen(8080, backlog=4)
    left.layer.handlers[True, IPPROTO_TCP].arrived = lambda now_ns, packet: True  # type: ignore[method-assign]
    for _ in range(200):
        left.begin(left.socket(), place(ip4(2), 8080))
        line.settle()
    assert len(listener.heard.listener.requests) == 4 and not right.tcp.engines
    assert right.stack.counters["TcpExt.SyncookiesSent"] == 196
    del left.layer.handlers[True, IPPROTO_TCP].arrived
    client = left.socket()
    left.begin(client, place(ip4(2), 8080))
    line.settle()
    assert right.accept(listener).state == TCP_ESTABLISHED


def test_thousands_that_end_are_forgotten_in_steps(line: Line) -> None:
    left, right = line.hosts
    listener = right.listen(8080, backlog=4096)
    right.option(listener, SOL_SOCKET, SO_REUSEADDR, 1)
    ports = set()
    for _ in range(2000):
        sock = left.socket()
        left.begin(sock, place(ip4(2), 8080))
        line.settle()
        right.accept(listener).decref()
        line.settle()
        ports.add(sock.local.port)
        sock.decref()
        line.settle()
        line.now_ns += SECOND_NS // 1000
    assert len(right.tcp.endpoints.time_wait) == len(right.tcp.left) == len(ports)
    assert not right.tcp.engines and not left.tcp.engines and not left.tcp.left
    line.wait(62 * SECOND_NS)
    assert not right.tcp.left and not len(right.tcp.endpoints.time_wait)
    assert right.tcp.timer() is None


def test_memory_of_all_is_bounded(line: Line) -> None:
    left, right = line.hosts
    for host in line.hosts:
        host.sysctls["net/ipv4/tcp_mem"] = "1 2 16"
    _, client, server = line.connected()
    for _ in range(8):
        if client.poll() & EPOLLOUT:
            left.send(client, bytes(1 << 17))
        line.settle()
        line.wait(SECOND_NS // 100)
    assert right.tcp.used < 65536 + 65536 and left.tcp.used < 65536 + 65536
    got = 0
    while got < (1 << 17):
        while server.poll() & EPOLLIN:
            got += len(receive(server))
        line.settle()
        line.wait(SECOND_NS)
    assert server.poll() & EPOLLIN == 0 or got


def test_reader_that_shuts_its_side_sees_the_end(line: Line) -> None:
    left, right = line.hosts
    _, client, server = line.connected()
    server.shutdown(SHUT_RD)
    assert receive(server) == b""
    assert right.send(server, b"x") == 1
    line.settle()
    assert receive(client) == b"x" and left.send(client, b"y") == 1


def test_one_acknowledgement_does_for_the_segments_of_a_turn(line: Line) -> None:
    left, right = line.hosts
    _, client, server = line.connected()
    left.send(client, bytes(14000))
    line.settle()
    receive(server)
    before = right.stack.counters["Tcp.OutSegs"]
    left.option(client, IPPROTO_TCP, abi.TCP_NODELAY, 1)
    for _ in range(8):
        left.send(client, bytes(3000))
    right.link.received(line.now_ns, *left.link.take_outgoing(100, 1 << 20))
    assert server.available() == 24000
    assert right.stack.counters["Tcp.OutSegs"] == before + 1
    line.settle()
    assert client.unsent() == 0


def test_connections_take_turns_where_a_link_has_little_room(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FEW_OUTGOING_BYTES", 1)
    left, right = line.hosts
    listener, *first = line.connected()
    pairs = [first]
    for _ in range(3):
        client = left.socket()
        left.begin(client, place(ip4(2), 8080))
        line.settle()
        pairs.append([client, right.accept(listener)])
    for client, _ in pairs:
        assert left.send(client, bytes(60000)) == 60000
    assert left.link.outgoing_bytes < 2 * 65536
    line.settle()
    line.wait(SECOND_NS)
    assert [server.available() for _, server in pairs] == [60000] * 4
    assert left.link.lost == 0 and not left.tcp.turns


def test_socket_that_finds_no_port_is_as_before(line: Line) -> None:
    left, right = line.hosts
    right.listen(8080)
    left.sysctls["net/ipv4/ip_local_port_range"] = "40000 40000"
    first, second = left.socket(), left.socket()
    left.begin(first, place(ip4(2), 8080))
    for _ in range(2):
        with pytest.raises(EADDRNOTAVAIL):
            done(second.connect(left.caller, place(ip4(2), 8080), True))
        assert second.local.is_any and not second.has_port and second.engine is None
    line.settle()
    assert first.state == TCP_ESTABLISHED
    left.begin(second, place(ip4(2), 8081))
    line.settle()
    assert error_of(second) == ECONNREFUSED.number


def test_handshake_stays_with_its_listener_when_others_come_and_go(line: Line) -> None:
    left, right = line.hosts

    def listen() -> Any:
        sock = right.socket()
        right.option(sock, SOL_SOCKET, SO_REUSEPORT, 1)
        done(sock.bind(right.caller, place(bytes(4), 8080)))
        sock.listen(right.caller, 64)
        return sock

    left.link.neighbours4.set_static(ip4(2), right.link.hardware)
    first, clients = listen(), [left.socket() for _ in range(20)]
    for client in clients:
        left.begin(client, place(ip4(2), 8080))
    right.link.received(line.now_ns, *left.link.take_outgoing(100, 1 << 20))
    assert len(first.heard.listener.requests) == 20
    others = [listen() for _ in range(3)]
    line.settle()
    assert [client.state for client in clients] == [TCP_ESTABLISHED] * 20
    assert [sock.queues()[0] for sock in (first, *others)] == [20, 0, 0, 0]


def turn(host: Any, port: int) -> None:
    """Whatever TCP sends goes to a port of the host's own."""
    flags = nft.NF_NAT_RANGE_MAP_IPS | nft.NF_NAT_RANGE_PROTO_SPECIFIED
    where = struct.pack("<II", 1, flags) + ip4(host.number) * 2 + struct.pack(">HH", port, port)
    rule = entry(part("DNAT", 0, where), head=header(protocol=IPPROTO_TCP))
    rules: Any = SimpleNamespace(netfilter=netfilter_of(host.stack))
    put(rules, with_rules("nat", nft.NF_INET_LOCAL_OUT, [rule]))


def test_connection_that_rules_turn_to_us_has_both_ends_here(line: Line) -> None:
    left = line.hosts[0]
    inward = left.layer.inward
    inward.soon = lambda: left.soon.append(lambda: inward.go_on(line.now_ns))

    def settle() -> None:
        while left.soon:
            left.soon.pop(0)()

    listener, client = left.listen(8080), left.socket()
    turn(left, 8080)
    left.begin(client, place(ip4(2), 80))
    settle()
    server = left.accept(listener)
    assert client.state == server.state == TCP_ESTABLISHED
    assert server.local_address() == place(ip4(1), 8080)
    assert client.peer_address() == place(ip4(2), 80)
    told, _ = server.option(left.caller, 0, SO_ORIGINAL_DST, 16)
    assert told == place(ip4(2), 80)
    for sender, receiver in ((client, server), (server, client)):
        left.send(sender, b"data" * 10_000)
        settle()
        assert receive(receiver) == b"data" * 10_000
    assert not line.seen and not left.frames()
