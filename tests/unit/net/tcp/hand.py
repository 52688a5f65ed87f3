"""A connection whose other end is a test: segments by hand, with numbers from 0 on."""

from __future__ import annotations

from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.segment import ACK, SYN, Arrived
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.pair import MTU, SECOND, packets, shared

LOCAL = Endpoint(MAPPED + b"\x0a\0\0\x01", 4000)
REMOTE = Endpoint(MAPPED + b"\x0a\0\0\x02", 80)
IRS = 0xFFFFFF00
"""The other end's numbers come round soon."""
MSS = 1460


class Hand:
    """Numbers in what is sent and heard: 1 is the first byte of either end."""

    def __init__(
        self,
        *,
        tuning: Tuning | None = None,
        stamps: bool = False,
        sack: bool = True,
        scale: int | None = 7,
        window: int = 65408,
        mss: int = MSS,
        ecn: bool = False,
        connect: bool = True,
        cut: bool = True,
        **settings: object,
    ) -> None:
        self.now = 5000 * SECOND
        self.cut = cut
        self.stamps = stamps
        self.changes = 0
        self.shared = shared(b"secret of a test", **settings)
        self.flow = Flow(LOCAL, REMOTE)
        self.one = Connection(self.flow, self.shared, MTU, tuning, self._changed)
        self.window = window
        self.scale = scale or 0
        self.tsval = 1000
        self.one.connect(self.now)
        self.syn = self.sent()[0]
        if not connect:
            return
        self.hear(
            SYN | ACK | (0x40 if ecn else 0), seq=0, ack=1, window=window, mss=mss,
            window_scale=scale, sack_permitted=sack,
        )  # fmt: skip
        self.sent()

    def _changed(self) -> None:
        self.changes += 1

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.shared.counters)

    def hear(
        self,
        flags: int = ACK,
        *,
        seq: int | None = None,
        ack: int | None = None,
        data: bytes = b"",
        window: int | None = None,
        sacks: tuple[tuple[int, int], ...] = (),
        after: float = 0,
        echo: int | None = None,
        value: int | None = None,
        **more: object,
    ) -> list[Arrived]:
        """A segment comes, some seconds later; what is sent of it. Numbers default to where we
        are; windows are in bytes, but for a SYN's."""
        self.now += int(after * SECOND)
        one = self.one
        seq = one.rcv.next - one.irs if seq is None else seq
        ack = one.snd_nxt - one.iss if ack is None else ack
        window = self.window if window is None else window
        if not flags & SYN:
            window >>= self.scale
        irs = IRS if flags & SYN or not one.irs else one.irs
        if self.stamps:
            self.tsval += 1
            value = self.tsval if value is None else value
            more["stamps"] = (value & 0xFFFFFFFF, one.stamp(self.now) if echo is None else echo)
        wire = tuple(((one.iss + a) & 0xFFFFFFFF, (one.iss + b) & 0xFFFFFFFF) for a, b in sacks)
        seg = Arrived(
            REMOTE.port, LOCAL.port, (irs + seq) & 0xFFFFFFFF, (one.iss + ack) & 0xFFFFFFFF,
            flags, min(window, 65535), 0, memoryview(data), sacks=wire,
        )  # fmt: skip
        for name, what in more.items():
            setattr(seg, name, what)
        one.segment(self.now, seg)
        return self.sent()

    def sent(self) -> list[Arrived]:
        """What was sent since it was asked last, cut into packets; numbers from 0 on."""
        found = []
        while made := self.one.take(self.now):
            for each in made:
                for seg in packets(each, self.cut):
                    seg.seq = (seg.seq - self.one.iss) & 0xFFFFFFFF
                    seg.ack = (seg.ack - self.one.irs) & 0xFFFFFFFF if seg.flags & ACK else 0
                    seg.sacks = tuple(
                        ((a - self.one.irs) & 0xFFFFFFFF, (b - self.one.irs) & 0xFFFFFFFF)
                        for a, b in seg.sacks
                    )
                    found.append(seg)
        return found

    def send(self, data: bytes) -> list[Arrived]:
        taken = self.one.send(self.now, data)
        assert taken == len(data)
        return self.sent()

    def wait(self, seconds: float) -> list[Arrived]:
        """Time passes, and what was to be done meanwhile is."""
        until = self.now + int(seconds * SECOND)
        found = []
        while (at := self.one.timer()) is not None and at <= until:
            self.now = max(self.now, at)
            self.one.timeout(self.now)
            found += self.sent()
        self.now = until
        return found

    def read(self, size: int = 1 << 24) -> bytes:
        return b"".join(self.one.receive(self.now, size))


def places(segments: list[Arrived]) -> list[tuple[int, int]]:
    """Where they begin, and how many bytes they have."""
    return [(seg.seq, len(seg.payload)) for seg in segments]
