"""Quotas and rates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.egress.limits import NS, Bucket, Usage, Way
from sentry.net.egress.rules import Limits


def test_bucket_lets_a_burst_go_and_then_its_rate() -> None:
    bucket = Bucket(100, 50)
    for _ in range(5):
        assert bucket.wait_ns(NS) == 0
        bucket.take(10, NS)

    assert bucket.wait_ns(NS) == 1
    assert bucket.wait_ns(NS + 1) == 0
    bucket.take(10, NS + 1)
    assert bucket.wait_ns(NS + 1) == NS // 10


def test_more_than_a_burst_goes_after_all_and_is_paid_for() -> None:
    bucket = Bucket(100, 10)
    assert bucket.wait_ns(NS) == 0
    bucket.take(1000, NS)
    assert bucket.wait_ns(NS) > 9 * NS


@given(
    st.integers(1, 10**10), st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(1, 65536), st.integers(0, NS)), min_size=1, max_size=50),
)  # fmt: skip
def test_what_goes_is_never_more_than_rate_and_burst(
    rate: int, burst: int, packets: list[tuple[int, int]]
) -> None:
    bucket, now_ns, gone = Bucket(rate, burst), NS, 0
    for size, pause_ns in packets:
        now_ns += pause_ns
        now_ns += bucket.wait_ns(now_ns)
        assert bucket.wait_ns(now_ns) == 0
        assert gone <= burst + (now_ns - NS) * rate // NS + len(packets) + rate // NS
        bucket.take(size, now_ns)
        gone += size


def test_quota_of_bytes_ends_each_way_by_itself() -> None:
    usage = Usage(Limits(bytes_out=100))
    usage.take(Way.OUT, 60, 0)
    usage.take(Way.IN, 1000, 0)

    assert usage.has_room(Way.OUT, 40)
    assert not usage.has_room(Way.OUT, 41)
    assert usage.has_room(Way.IN, 1 << 40)


def test_connections_are_counted_in_all_and_at_a_time() -> None:
    usage = Usage(Limits(connections=3, open=2))
    usage.begin()
    usage.begin()
    assert not usage.admits
    usage.open -= 1
    assert usage.admits
    usage.begin()
    usage.open -= 1
    assert not usage.admits


def test_new_limits_count_what_was_used() -> None:
    usage = Usage(Limits())
    usage.take(Way.OUT, 60, 0)
    usage.limit(Limits(bytes_out=50))
    assert not usage.has_room(Way.OUT, 0)
