"""What answers what belongs to nothing. RFC 9293, 3.10.7.1."""

from __future__ import annotations

from sentry.net.tcp.segment import ACK, FIN, RST, SYN, Arrived, parse
from sentry.net.tcp.stray import reply_to_stray


def stray(flags: int, data: bytes = b"", checksum_ok: bool = True) -> Arrived:
    return Arrived(5, 6, 100, 200, flags, 9, 0, memoryview(data), checksum_ok)


def test_acknowledgement_is_reset_where_it_is() -> None:
    made = reply_to_stray(stray(ACK))

    assert made is not None
    seg = parse(made.header)
    assert seg is not None
    assert (seg.source_port, seg.destination_port) == (6, 5)
    assert (seg.flags, seg.seq, seg.ack, seg.window) == (RST, 200, 0, 0)


def test_what_acknowledges_nothing_is_acknowledged() -> None:
    made = reply_to_stray(stray(SYN | FIN, b"abc"))

    assert made is not None
    seg = parse(made.header)
    assert seg is not None and (seg.flags, seg.seq, seg.ack) == (RST | ACK, 0, 105)


def test_reset_and_damage_have_no_answer() -> None:
    assert reply_to_stray(stray(RST)) is None
    assert reply_to_stray(stray(SYN, checksum_ok=False)) is None
