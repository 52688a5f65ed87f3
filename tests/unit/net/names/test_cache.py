"""The cache forgets at the end of TTLs, and what was used longest ago."""

from __future__ import annotations

import pytest

from sentry.net.names import cache as module
from sentry.net.names.cache import NS, Cache, Key
from sentry.net.names.chain import Found
from sentry.net.names.messages import Record


def key(number: int) -> Key:
    return Key(number.to_bytes(2), 1, 0)


def found(lifetime_s: int = 60, size: int = 4) -> Found:
    record = Record(b"\1a\0", 1, lifetime_s, bytes(size))
    return Found(0, 0, (record,), (), lifetime_s, (), lifetime_s)


def test_answer_is_given_until_its_ttl_ends() -> None:
    cache = Cache()
    cache.put(key(1), found(60), 10 * NS)

    cached = cache.get(key(1), 69 * NS)
    assert cached is not None and cached.elapsed_s(69 * NS) == 59
    assert cache.get(key(1), 70 * NS) is None
    assert (len(cache), cache.bytes) == (0, 0)


def test_answers_differ_by_type_and_flags() -> None:
    cache = Cache()
    cache.put(Key(b"a", 1, 0), found(), 0)

    assert cache.get(Key(b"a", 28, 0), 0) is None
    assert cache.get(Key(b"a", 1, 0x8000), 0) is None


def test_answer_without_lifetime_or_too_large_is_not_kept() -> None:
    cache = Cache()
    cache.put(key(1), found(0), 0)
    cache.put(key(2), found(size=module.MAX_ANSWER_BYTES), 0)
    assert len(cache) == 0


def test_what_was_not_used_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWERS", 3)
    cache = Cache()
    for number in (1, 2, 3):
        cache.put(key(number), found(), 0)
    cache.get(key(1), 0)
    cache.put(key(4), found(), 0)

    assert [number for number in (1, 2, 3, 4) if cache.get(key(number), 0)] == [1, 3, 4]


def test_bytes_are_bounded_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    cache = Cache()
    for number in range(100):
        cache.put(key(number), found(size=1000), 0)
        cache.put(key(number), found(size=900), 0)
        assert cache.bytes <= 10_000
    assert len(cache) == 7
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)
