"""Verdicts in words."""

from __future__ import annotations

import pytest

from sentry.policy.verdicts import ALLOW, DENY, KILL, RESULT, parsed


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("allow", ALLOW), ("deny", DENY), ("deny EACCES", DENY(13)), ("deny 5", DENY("EIO")),
        (" kill ", KILL), ("result 7", RESULT(7)), ("deny EWOULDBLOCK", DENY("EAGAIN")),
    ],
)  # fmt: skip
def test_words_are_verdicts_and_back(text: str, verdict: object) -> None:
    assert parsed(text) == verdict
    assert parsed(str(verdict)) == verdict


@pytest.mark.parametrize(
    "text", ["", "yes", "allow all", "deny ENOTHING", "deny 4000", "result", "result -1", "kill 9"]
)
def test_other_words_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(text)
