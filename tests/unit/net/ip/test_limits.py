"""How many errors are told."""

from __future__ import annotations

from sentry.net.ip import limits
from sentry.net.ip.limits import ErrorLimit
from tests.unit.net.wired import SECOND_NS, ip4

SETTING = "net/ipv4/icmp_ratelimit"


def test_one_target_gets_six_and_then_one_a_second() -> None:
    made, now_ns = ErrorLimit({}, SETTING), 10 * SECOND_NS
    assert [made.allows(now_ns, ip4(1)) for _ in range(8)] == [True] * 6 + [False] * 2
    assert made.allows(now_ns, ip4(2))
    later_ns = now_ns + SECOND_NS
    assert [made.allows(later_ns, ip4(1)) for _ in range(2)] == [True, False]


def test_all_targets_together_get_a_burst_and_then_a_thousand_a_second() -> None:
    made, now_ns = ErrorLimit({}, SETTING), 10 * SECOND_NS
    targets = [bytes([10, 1]) + n.to_bytes(2) for n in range(400)]
    assert sum(made.allows(now_ns, each) for each in targets[:200]) == limits.BURST
    later_ns = now_ns + 20_000_000
    assert sum(made.allows(later_ns, each) for each in targets[200:]) == 20


def test_values_that_are_written_count_from_the_next_error_on() -> None:
    sysctls: dict[str, str] = {}
    made, now_ns = ErrorLimit(sysctls, SETTING), 10 * SECOND_NS
    assert sum(made.allows(now_ns, ip4(1)) for _ in range(10)) == 6
    sysctls[SETTING] = "0"
    assert sum(made.allows(now_ns, ip4(1)) for _ in range(100)) == limits.BURST - 10
    sysctls["net/ipv4/icmp_msgs_per_sec"] = "5"
    sysctls["net/ipv4/icmp_msgs_burst"] = "3"
    assert sum(made.allows(now_ns + SECOND_NS, ip4(1)) for _ in range(10)) == 3
    sysctls["net/ipv4/icmp_msgs_per_sec"] = "0"
    assert not made.allows(now_ns + 9 * SECOND_NS, ip4(1))


def test_targets_that_are_known_are_bounded() -> None:
    made = ErrorLimit({}, SETTING)
    for number in range(3000):
        made.allows(number * SECOND_NS, bytes([10, 1]) + number.to_bytes(2))
    assert len(made._targets) <= limits.MAX_TARGETS
