"""Which of what fits a rule it is for."""

from __future__ import annotations

import pytest

from sentry.faults import InjectRule
from sentry.inject.choice import Choice, chance, patterns


def taken(rule: InjectRule, count: int) -> list[int]:
    choice = Choice(rule)
    return [number for number in range(count) if choice.takes()]


def test_same_seed_takes_the_same() -> None:
    rule = InjectRule(("read",), errno="EIO", probability=0.1, seed=7)
    found = taken(rule, 10_000)
    assert found == taken(rule, 10_000)
    assert 800 < len(found) < 1200
    assert found != taken(InjectRule(("read",), errno="EIO", probability=0.1, seed=8), 10_000)


def test_some_go_by_first_and_so_many_are_taken() -> None:
    assert taken(InjectRule(("read",), after=3, count=2), 10) == [3, 4]
    assert taken(InjectRule(("read",), probability=0), 100) == []


def test_chance_lies_between_0_and_1() -> None:
    found = [chance(seed, number) for seed in (0, 1, 1 << 61) for number in range(1000)]
    assert all(0 <= each < 1 for each in found)
    assert 0.45 < sum(found) / len(found) < 0.55


@pytest.mark.parametrize(
    ("pattern", "fits", "not_"),
    [
        ("/data/**", b"/data/a/b\n", b"/data"), ("/data/*", b"/data/a", b"/data/a/b"),
        ("/d?ta", b"/data", b"/d/ta"), ("/a.b", b"/a.b", b"/aXb"), ("/\udcff", b"/\xff", b"/x"),
    ],
)  # fmt: skip
def test_patterns_are_of_whole_paths(pattern: str, fits: bytes, not_: bytes) -> None:
    found = patterns((pattern, "/other"))
    assert found is not None
    assert found.fullmatch(fits)
    assert found.fullmatch(b"/other")
    assert not found.fullmatch(not_)


def test_more_wildcards_than_a_look_may_cost_are_refused() -> None:
    with pytest.raises(ValueError, match="wildcards"):
        patterns(("/*/*/*",))
    assert patterns(()) is None
