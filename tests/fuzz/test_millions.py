"""Frames, DNS messages, requests of netlink and of nftables in great numbers.

What the other fuzzers draw is spoiled and joined again here, which costs little each, so that
RUNSC_FUZZ_MESSAGES=1000000 is a matter of minutes. For each round there is another host, resolver
or world; what it keeps has the bounds that the other fuzzers look at.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from tests.fuzz import test_dns, test_netlink, test_nftables, test_stack
from tests.fuzz.running import SEED, bounded, round_settings
from tests.fuzz.sockets import Sockets
from tests.unit.net.names.harness import Outside

MESSAGES: Final = int(os.environ.get("RUNSC_FUZZ_MESSAGES", "2000"))
ROUND: Final = 2000 if MESSAGES < 100_000 else 20_000
POOL: Final = 150
PLACES: Final = (24, 25, 26, 27)
"""Sockets of netlink."""
Hear = Callable[[bytes], object]


def drawn(strategy: st.SearchStrategy[Any], start: int) -> list[Any]:
    """Some values."""
    made: list[Any] = []

    def keep(value: Any) -> None:
        made.append(value)

    seed(start)(round_settings(max_examples=POOL)(given(value=strategy)(keep)))()
    return made


def changed(chance: random.Random, pool: list[bytes]) -> bytes:
    """One of them, as it is or spoiled."""
    data = chance.choice(pool)
    kind = chance.randrange(6)
    at = chance.randrange(len(data) + 1)
    if kind == 0:
        return data[:at]
    if kind == 1:
        other = chance.choice(pool)
        return data[:at] + other[min(at, len(other)) :]
    if kind == 2:
        return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]
    if kind < 5 and data:
        spoiled = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            spoiled[chance.randrange(len(data))] = chance.choice((0, 1, 255, chance.randrange(256)))
        return bytes(spoiled)
    return data


@contextmanager
def frames(chance: random.Random) -> Iterator[Hear]:
    """A host."""
    host = test_stack.Bounds()

    def hear(frame: bytes) -> None:
        host.hear(1, frame)
        host.host.frames()
        if chance.randrange(50) == 0:
            host.wait(chance.choice((1, 1000, 40_000)), b"")
            host.check()

    yield hear
    host.check()


@contextmanager
def names(chance: random.Random) -> Iterator[Hear]:
    """A resolver: programs ask, nameservers answer, also what was asked."""
    outside = Outside(lambda question, _: test_dns.is_allowed(question.name or ""))

    def hear(data: bytes) -> None:
        kind = chance.randrange(4)
        if kind < 2 or not outside.asks:
            test_dns.run(outside, ("ask", chance.randrange(4), chance.randrange(2), data))
        elif kind == 2:
            test_dns.run(outside, ("garbage", chance.randrange(4), data))
        else:
            ask = outside.asks[0]
            head = ask.data[: ask.data.index(b"\0", 12) + 5]
            whole = head[:2] + b"\x81\x80" + head[4:6] + data[6:12] + head[12:] + data[12:]
            outside.note(
                outside.forwarder.answered(whole, ask.server, ask.port, outside.now_ns)
            )
        outside.replies.clear()
        if chance.randrange(30) == 0:
            outside.later(chance.choice((0.1, 1, 5, 300)))
        assert len(outside.asks) == len(outside.forwarder._by_port)

    yield hear
    for _ in range(20):
        outside.later(5)
    assert (outside.asks, outside.forwarder._pending) == ([], {})


@contextmanager
def netlink(chance: random.Random) -> Iterator[Hear]:
    """A world, whose sockets are read now and then."""
    with Sockets() as sockets:

        def hear(data: bytes) -> None:
            place = sockets.fds[chance.choice(PLACES)]
            sockets._send(place, b"", data, b"", 0)
            if chance.randrange(3) == 0:
                sockets._receive(place, 40000, 64, 0)

        yield hear


@contextmanager
def nftables(chance: random.Random) -> Iterator[Hear]:
    """A world, where packets meet the rules."""
    with Sockets() as sockets:
        place, udp = sockets.fds[test_nftables.NETFILTER], sockets.fds[test_nftables.UDP]

        def hear(data: bytes) -> None:
            sockets._send(place, b"", data, b"", 0)
            if chance.randrange(4) == 0:
                sockets._receive(place, 40000, 64, 0)
                sockets._send(udp, test_nftables.LOCAL[test_nftables.AF_INET], b"x", b"", 0)

        yield hear


KINDS: Final = {
    "frames": (frames, test_stack.ANY),
    "names": (names, test_dns.MESSAGES | test_dns.QUERIES | test_dns.RECORDS),
    "netlink": (netlink, test_netlink.MESSAGES),
    "nftables": (nftables, test_nftables.DATA),
}


@pytest.mark.timeout(60 + MESSAGES // 20)
@pytest.mark.parametrize("kind", KINDS)
def test_messages_in_great_numbers_hurt_nobody(kind: str) -> None:
    target, strategy = KINDS[kind]
    done = turn = 0
    while done < MESSAGES:
        start = SEED * 1_000_000 + turn
        chance = random.Random(start)
        pool = drawn(strategy, start)
        with target(chance) as hear:
            for number in range(ROUND):
                data = changed(chance, pool)
                with bounded(f"round {turn}, message {number}: {data!r}"):
                    hear(data)
        done, turn = done + ROUND, turn + 1
    print(f"{kind}: {done} messages")
