"""Who sent a packet for a neighbour that does not answer hears of it, whoever it is."""

from __future__ import annotations

from sentry.net.ip.seam import Outgoing
from tests.unit.net.ip.test_forward import TEST, Router, far4, far6, four, six
from tests.unit.net.wired import SECOND_NS


def _wait(router: Router) -> None:
    now_ns = SECOND_NS
    while (next_ns := router.layer.timer()) is not None and now_ns < 60 * SECOND_NS:
        now_ns = max(next_ns, now_ns + 1)
        router.layer.timeout(now_ns)


def test_others_are_told_by_a_message() -> None:
    router = Router()
    later = four(b"y" * 8, to=far4(1, 78), fragment=3)
    for frame in (four(b"x" * 8, to=far4(1, 77)), six(b"x" * 8, to=far6(1, 77)), later):
        router.link.received(SECOND_NS, frame)
    _wait(router)

    told = [frame[10:] for frame in router.link.take_outgoing(100, 1 << 20)]

    assert [frame[34:36] for frame in told if frame[12:14] == b"\x08\0"] == [b"\x03\x01"]
    assert [frame[54:56] for frame in told if frame[12:14] == b"\x86\xdd"] == [b"\x01\x03"]


def test_protocol_of_ours_is_told() -> None:
    router = Router()
    keeper = router.keep(TEST)
    for target in (far4(1, 77), far6(1, 77)):
        router.layer.send(SECOND_NS, Outgoing(target, TEST, (b"12345678",)))
    _wait(router)

    assert [failure.target for failure in keeper.failures] == [far4(1, 77), far6(1, 77)]
