from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from runsc.checks import tried as module
from runsc.checks.tried import Failed, tried
from runsc.launch import isolation


def test_an_answer_comes_back() -> None:
    assert tried(lambda: "fine") == "fine"
    assert tried(lambda: "") == ""


def test_namespaces_are_those_that_are_asked_for() -> None:
    assert tried(lambda: str(os.getpid()), isolation.NAMESPACES) == "1"


def _fail() -> str:
    raise ValueError("the reason")


def _die() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


@pytest.mark.parametrize(("body", "why"), [(_fail, "the reason"), (_die, "status 0x9")])
def test_what_fails_says_why(body: Callable[[], str], why: str) -> None:
    with pytest.raises(Failed, match=why):
        tried(body)


def test_what_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_MS", 1)

    with pytest.raises(Failed, match="does not end"):
        tried(lambda: str(signal.pause()))
