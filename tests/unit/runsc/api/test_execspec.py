"""What a command is asked to be."""

from __future__ import annotations

import math

import pytest

from runsc.accounts import Ids
from runsc.api.execspec import Spec
from runsc.api.values import Limits
from sentry.config import JobLimits


def test_text_is_for_a_shell_and_a_list_for_nobody() -> None:
    assert Spec("a b", None, None, None, None).args == ("/bin/sh", "-c", "a b")
    assert Spec(["a", "b c"], None, None, None, None).args == ("a", "b c")


def test_what_is_not_said_is_left_to_the_sandbox() -> None:
    made = Spec(["x"], None, None, None, None).process(None)
    assert (made.uid, made.gid, made.additional_gids, made.cwd) == (None, None, None, b"")
    assert (made.env, made.extra_env, made.job) == (None, (), JobLimits())
    assert not made.terminal


def test_what_is_said_is_told() -> None:
    limits = Limits(cpu=0.25, memory=1, processes=2, written=3, output=4, egress=5)
    spec = Spec(["\udcff"], {"A": "b=c"}, "/x", 1e-12, limits)
    made = spec.process(Ids(1, 2, (3,)), terminal=True)

    assert (made.args, made.extra_env, made.cwd) == ((b"\xff",), (b"A=b=c",), b"/x")
    assert (made.uid, made.gid, made.additional_gids, made.terminal) == (1, 2, (3,), True)
    assert made.job == JobLimits(1, 250_000_000, 1, 2, 3, 5)


@pytest.mark.parametrize(
    ("cwd", "timeout", "limits"),
    [("x", None, None), (None, 0, None), (None, -1, None), (None, math.inf, None),
     (None, math.nan, None), (None, 1e12, None), (None, None, Limits(memory=0)),
     (None, None, Limits(cpu=-1.0)), (None, None, Limits(cpu=math.inf))],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    cwd: str | None, timeout: float | None, limits: Limits | None
) -> None:
    with pytest.raises(ValueError):
        Spec("x", None, cwd, timeout, limits)
    with pytest.raises(ValueError):
        Spec([], None, None, None, None)
    for name in ("", "A=B"):
        with pytest.raises(ValueError, match="no name of a variable"):
            Spec("x", {name: "1"}, None, None, None)
