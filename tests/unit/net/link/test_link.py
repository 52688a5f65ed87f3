"""What a link takes in and gives out."""

from __future__ import annotations

from sentry.net.ip.seam import Outgoing
from sentry.net.link import link
from tests.unit.net.wired import Host, hardware, ip4


def full(host: Host, frames: int, size: int = 1000) -> None:
    host.link.neighbours4.set_static(ip4(2), hardware(2))
    for _ in range(frames):
        host.layer.send(0, Outgoing(ip4(2), 253, (bytes(size),)))


def test_frames_for_others_are_not_looked_at() -> None:
    one, two = Host(1), Host(2)
    full(two, 0)
    two.link.neighbours4.set_static(ip4(1), hardware(7))
    kept = one.keep(253)
    two.layer.send(0, Outgoing(ip4(1), 253, (b"x",)))
    (frame,) = two.frames()
    one.hear(frame)
    assert not kept.packets and not one.layer.counters
    one.hear(hardware(1) + frame[6:])
    assert len(kept.packets) == 1


def test_what_waits_for_the_descriptor_is_bounded() -> None:
    host = Host(1)
    full(host, link.MAX_OUTGOING + 10)
    assert len(host.link.outgoing) == link.MAX_OUTGOING and host.link.lost == 10
    host.frames()
    assert host.link.outgoing_bytes == 0
    host.interface.mtu = 65535
    full(host, 200, 60_000)
    assert host.link.outgoing_bytes <= link.MAX_OUTGOING_BYTES


def test_first_frame_says_that_there_is_one() -> None:
    host, told = Host(1), []
    host.link.on_output = lambda: told.append(1)
    full(host, 3)
    assert told == [1]
    taken = host.link.take_outgoing(2, 1 << 20)
    host.link.give_back(taken[1:])
    assert [len(host.link.outgoing), len(host.frames()), host.link.outgoing_bytes] == [2, 2, 0]


def test_frames_are_taken_up_to_a_number_and_to_a_size() -> None:
    host = Host(1)
    full(host, 5)
    assert len(host.link.take_outgoing(64, 1500)) == 2
    assert len(host.link.take_outgoing(1, 1500)) == 1
    assert len(host.link.take_outgoing(64, 0)) == 1
