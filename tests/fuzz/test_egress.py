"""Programs over a stack of its own with a policy that changes, a resolver, whoever is on the link,
and an interface that programs have made, behind which is anybody: everything that leaves is of a
flow that the policy of now allows."""

from __future__ import annotations

import struct
from contextlib import suppress
from functools import partial
from typing import Any, Self, cast

from hypothesis import strategies as st

from sentry.abi.netlink import ARPHRD_NONE, IFF_LOWER_UP, IFF_RUNNING, IFF_UP
from sentry.abi.socket import AF_INET, AF_INET6, SHUT_WR
from sentry.errors import EAGAIN, ECONNREFUSED, ENETDOWN, Errno
from sentry.net.egress.flows import MAX_FLOWS, TCP, Flow, Key
from sentry.net.egress.keys import key_of
from sentry.net.frame import show_link_frame
from sentry.net.inet.egress import Egress
from sentry.net.inet.resolver import Resolver
from sentry.net.interfaces import Address, Interface
from sentry.net.ip import ipv4
from sentry.net.ip.seam import Arrived
from sentry.net.link.link import PointLink
from sentry.net.tcp.segment import RST
from sentry.wait.steps import at_once
from tests.fuzz.inside import Step, many
from tests.fuzz.running import bounded, explore, for_a_while
from tests.fuzz.sockets import DATA, PORT
from tests.fuzz.test_dns import COUNTS, FLAGS, LIKELY_FLAGS, QUERIES, RECORDS, WHOLE, answer
from tests.fuzz.test_own_stack import FRESH, STEPS, STREAM, Linked
from tests.fuzz.test_stack import ANY, FOUR, INNER, PLACES, SHORT, VIRTIO, as_icmp4, as_ip4
from tests.unit.net.brokered import Dialed
from tests.unit.net.names.wires import Asked
from tests.unit.net.netfilter.router import tcp, udp
from tests.unit.net.wired import INDEX, ip4, ip6

SERVERS = "10.0.0.2", "fd00::2", "127.0.0.11"
POLICIES = (
    "",
    'inbound = "deny"',
    'default = "allow"\n[[rule]]\naction = "allow"\ncidrs = ["10.0.0.0/8", "fd00::/8"]',
    'denial = "EPERM"\n[[rule]]\naction = "allow"\nnames = ["*.a.org"]\ncidrs = ["10.0.0.2"]\n',
    '[[rule]]\naction = "allow"\ncidrs = ["10.0.0.0/8", "fd00::/8", "224.0.0.0/4"]\n'
    "limits = { bytes_out = 3000, bytes_in = 3000, rate_out = 1000, burst = 500 }\n"
    '[dns]\nrefusal = "REFUSED"\nservers = ["10.0.0.9"]',
    '[[rule]]\naction = "allow"\ncidrs = ["10.0.0.2", "fd00::2"]\nports = [4000]\nbroker = "/b"\n'
    "limits = { bytes_out = 100_000, bytes_in = 200_000, connections = 20 }\n"
    '[[rule]]\naction = "allow"\ncidrs = ["10.0.0.0/8", "fd00::/8"]\n',
    '[[rule]]\naction = "deny"\nprotocols = ["udp"]\ncidrs = ["10.0.0.2"]\n'
    '[[rule]]\naction = "allow"\ncidrs = ["10.0.0.2", "fd00::2"]\nprotocols = ["udp", "icmp"]\n',
)
TO_SERVERS = st.sampled_from([
    struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 53, ip4(2)),
    struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 53, b"\x7f\0\0\x0b"),
    struct.pack("<H", AF_INET6) + struct.pack(">HI16s", 53, 0, ip6(2)) + bytes(4),
])  # fmt: skip
FRAMED = QUERIES.map(lambda message: len(message).to_bytes(2) + message)
ANSWERS = st.one_of(
    *[st.tuples(st.just("whole"), LIKELY_FLAGS, WHOLE)] * 2,
    st.tuples(st.just("answer"), FLAGS, COUNTS, RECORDS),
)
DNS = st.one_of(
    st.tuples(st.just("send"), FRESH, TO_SERVERS, QUERIES | DATA, st.just(b""), st.just(0)),
    st.tuples(st.just("connect"), STREAM, TO_SERVERS),
    st.tuples(st.just("send"), STREAM, st.just(b""), FRAMED | DATA, st.just(b""), st.just(0)),
    st.tuples(st.just("serve"), FRESH, ANSWERS),
    st.tuples(st.just("serve"), FRESH, st.just(None)),
    st.tuples(st.just("change"), FRESH, st.sampled_from(POLICIES)),
    st.tuples(st.just("broker"), FRESH, st.sampled_from(["echo", "say", "half", "close"])),
    st.tuples(st.just("dialer"), FRESH, st.sampled_from([EAGAIN, ECONNREFUSED, ENETDOWN])),
)
PACKET = st.builds(
    lambda to, protocol, port, data: (
        bytes(12) + b"\x08\0"
        + ipv4.build(ipv4.Header(20, 28 + len(data), 0, 0, 0, 9, protocol, ip4(1), to))
        + struct.pack(">HHHH", 9, port, 8 + len(data), 0) + data
    ),
    st.sampled_from([ip4(2), ip4(9), b"\x08" * 4]), st.sampled_from([1, 6, 17, 47]),
    st.sampled_from([0, 9, 53]), st.binary(max_size=30),
)  # fmt: skip
LINK = st.just(struct.pack("<HHiHBB8s", 17, 8, INDEX, 0, 0, 6, bytes(8)))
FRAMES = st.tuples(st.just("send"), st.integers(10, 11), LINK, PACKET, st.just(b""), st.just(0))
"""By the packet sockets of UNBOUND."""
MADE = INDEX + 1
"""The interface that programs have made: 10.0.1.1 and fd00:1::1."""
BEHIND4, BEHIND6 = bytes((10, 0, 1)), b"\xfd\0\0\1" + bytes(11)
ENDS = st.one_of(
    st.tuples(*[st.sampled_from([
        BEHIND4 + b"\2", BEHIND4 + b"\1", ip4(1), ip4(2), ip4(9), b"\x08" * 4,
    ])] * 2),
    st.tuples(*[st.sampled_from([
        BEHIND6 + b"\2", BEHIND6 + b"\1", ip6(1), ip6(2), ip6(9), b"\x20\x01" + bytes(14),
    ])] * 2),
)  # fmt: skip
ENDS4 = ENDS.filter(lambda both: len(both[0]) == 4)
PORTS = st.tuples(*[st.sampled_from([9, 53, PORT])] * 2)
BEHIND = st.one_of(
    *[st.builds(
        lambda both, ports, flags, data: tcp(*both, ports, flags, data),
        ENDS, PORTS, st.sampled_from([2, 16, 18, 17, 4, 24]), SHORT,
    )] * 2,
    st.builds(lambda both, ports, data: udp(*both, ports, data), ENDS, PORTS, SHORT | QUERIES),
    st.builds(as_ip4, ENDS4, st.sampled_from([6, 17, 1, 47]), PLACES, st.just(b""), SHORT),
    st.builds(
        lambda both, code, rest, data: as_ip4(both, 1, 0, b"", as_icmp4(3, code, rest, data)),
        ENDS4, st.integers(0, 15), FOUR, INNER,
    ),
    ANY.map(lambda frame: frame[24:]),
)  # fmt: skip
MADES = st.tuples(st.just("behind"), FRESH, VIRTIO, BEHIND)


class Judged(Linked):
    """The same with a resolver, and a policy."""

    def __enter__(self) -> Self:
        super().__enter__()
        loop = self.world.kernel.loop
        self.resolver = Resolver(self.stack, cast(Any, None), loop, SERVERS)
        self.asked = self.resolver._nameservers = cast(Any, Asked())
        self.dialed = Dialed()
        dialer = cast(Any, self.dialed)
        self.egress = Egress(self.stack, self.resolver, loop, POLICIES[2], (), dialer)
        self.passed: set[Key] = set()
        goes = self.egress.gate._goes

        def note(flow: Flow, size: int, now_ns: int) -> bool:
            self.passed.add(flow.key)
            return goes(flow, size, now_ns)

        self.egress.gate._goes = note  # type: ignore[method-assign]
        arriving = self.egress.gate.arriving

        def came(now_ns: int, packet: Arrived) -> bool:
            assert packet.index == INDEX  # else somebody inside begins a flow of somebody outside
            return arriving(now_ns, packet)

        self.egress.gate.arriving = came  # type: ignore[method-assign]
        self._make()
        show = self.link.seen

        def seen(frame: bytes, is_outgoing: bool) -> None:
            show(frame, is_outgoing)
            self._seen(frame, is_outgoing)

        self.link.seen = seen
        return self

    def _make(self) -> None:
        """The interface, for which the namespace is a router."""
        layer, flags = self.stack.ip, IFF_UP | IFF_RUNNING | IFF_LOWER_UP
        made = Interface(MADE, "made", ARPHRD_NONE, flags, 1500, b"")
        made.addresses = [
            Address(AF_INET, BEHIND4 + b"\1", 24, 0), Address(AF_INET6, BEHIND6 + b"\1", 64, 0),
        ]  # fmt: skip
        self.stack.interfaces.insert(made)
        for family in ("ipv4", "ipv6"):
            self.stack.sysctls[f"net/{family}/conf/all/forwarding"] = "1"
        self.made = layer.links[MADE] = PointLink(MADE, b"", layer)
        self.made.seen = partial(show_link_frame, self.stack, self.made)
        self.made.stays_inside = True
        at_once(layer.refresh(self.stack.routes))

    def _behind(self, fd: int, head: bytes, packet: bytes) -> None:
        """Who serves the interface sends something, as from anybody, and reads what has come."""
        with bounded(packet):
            self.made.received(self.now_ns, head + packet)
        self.world.settle()
        self.made.take_outgoing(16, 1 << 20)

    def _seen(self, frame: bytes, is_outgoing: bool) -> None:
        if is_outgoing:
            self._check(frame[24:])

    def _check(self, packet: bytes) -> None:
        """What goes out has passed the gate; but a reset of the stack's own."""
        header = ipv4.parse(packet) if packet[:1] == b"\x45" else None
        if header is None or header.is_fragment or header.protocol not in (TCP, 17):
            return
        head = packet[header.size :]
        key = key_of(header.protocol, header.source, header.target, head)
        assert key in self.passed or (key and key.protocol == TCP and head[13] & RST)

    def _serve(self, fd: int, said: Any) -> None:
        """A nameserver answers the oldest question, or cannot be reached."""
        for ask in list(self.asked.asks.values())[:1]:
            with bounded(said):
                if said is None:
                    self.resolver.unheard(ask)
                else:
                    self.resolver.heard(ask, answer(ask.data, said[0], list(said[1:])))
        self.world.settle()

    def _change(self, fd: int, policy: str) -> None:
        with bounded(policy):
            self.egress.change(policy, ("10.0.0.9",), cast(Any, self.dialed))
        self.world.settle()

    def _broker(self, fd: int, what: str) -> None:
        """Those that were connected last do something."""
        for end in self.dialed.ends[-3:]:
            end.setblocking(False)
            with suppress(OSError):
                match what:
                    case "echo":
                        end.send(end.recv(65536))
                    case "say":
                        end.send(bytes(70_000))
                    case "half":
                        end.shutdown(SHUT_WR)
                    case "close":
                        end.close()
        self.world.settle()

    def _dialer(self, fd: int, error: type[Errno]) -> None:
        """The next one that connects hears this."""
        self.dialed.errors[:] = [error("fuzz")]

    def __exit__(self, kind: object, *rest: object) -> None:
        for stream in list(self.egress.brokers._streams.values()):
            stream.reset()
        if kind is None:
            self.world.settle()
        for end in self.dialed.ends:
            end.close()
        super().__exit__(kind, *rest)


def check(steps: list[Step]) -> None:
    with Judged() as sockets:
        sockets.run(steps)
        assert len(sockets.egress.flows) <= MAX_FLOWS


@for_a_while()
def test_nothing_leaves_that_the_policy_denies(seconds: float) -> None:
    explore(seconds, check, steps=many(st.one_of(*[STEPS] * 2, DNS, FRAMES, MADES)))
