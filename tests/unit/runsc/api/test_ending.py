"""How commands end, and what values tell of it."""

from __future__ import annotations

import signal

import pytest

from runsc.api import limits as kinds
from runsc.api.ending import exit_code, raise_exceeded, usage_of
from runsc.api.values import CommandResult, Limits, Usage
from sentry.config import JobUse

RESULT = CommandResult(137, b"\xff", b"", Usage(1.5, 1.0, 1.0, 7, 3, 0, 9, 11))


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (0x300, 3), (9, 137), (0x8B, 139), (-1, 255), (1 << 20, 255)]
)
def test_exit_code_is_of_a_wait_status(status: int, code: int) -> None:
    assert exit_code(status) == code


def test_use_is_in_seconds_and_bytes() -> None:
    use = JobUse(10**9, 5 * 10**8, 1, 2, 3, 4, 5)
    assert usage_of(use, 2.5) == Usage(2.5, 1.0, 0.5, 1, 2, 3, 4, 5)
    assert usage_of(None, 2.5) == Usage(2.5)


@pytest.mark.parametrize(
    ("name", "kind", "limit", "used"),
    [
        ("wall", kinds.TimeLimitExceeded, 1.0, 1.5),
        ("cpu", kinds.CpuLimitExceeded, 2.0, 2.0),
        ("memory", kinds.MemoryLimitExceeded, 3, 7),
        ("processes", kinds.ProcessLimitExceeded, 4, 3),
        ("written", kinds.WriteLimitExceeded, 5, 9),
        ("egress", kinds.EgressLimitExceeded, 6, 11),
        ("other", kinds.LimitExceeded, 0, 0),
    ],
)
def test_each_limit_has_its_exception(
    name: str, kind: type[kinds.LimitExceeded], limit: float, used: float
) -> None:
    limits = Limits(cpu=2.0, memory=3, processes=4, written=5, egress=6)
    with pytest.raises(kind) as raised:
        raise_exceeded(name, 1.0, limits, RESULT)

    assert type(raised.value) is kind
    assert (raised.value.limit, raised.value.used) == (limit, used)
    assert raised.value.result is RESULT
    assert "used of" in str(raised.value)


def test_result_shows_text_and_the_signal() -> None:
    assert (RESULT.stdout, RESULT.signal) == ("�", signal.SIGKILL)
    assert CommandResult(3).signal is None
    assert CommandResult(128).signal is None


def test_amounts_are_told_as_they_are() -> None:
    told = str(kinds.OutputLimitExceeded(16 << 20, 17_760_300, RESULT))
    assert told == "output: 17760300 bytes used of 16777216 bytes"
    assert str(kinds.TimeLimitExceeded(0.2, 0.21234, RESULT)) == "time: 0.212 s used of 0.2 s"
