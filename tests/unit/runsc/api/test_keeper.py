"""What becomes of a sandbox whose keeper is ended, or left, before its caller knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runsc.api import keeper
from runsc.api.order import Order
from runsc.containers import lifecycle
from runsc.launch import launch


class Caller:
    """The other end of the socket: it says something, closes, or a signal comes instead."""

    def __init__(self, then: bytes | BaseException) -> None:
        self.then = then

    def recv(self, _: int) -> bytes:
        if isinstance(self.then, BaseException):
            raise self.then
        return self.then


@pytest.mark.parametrize(
    ("then", "ended"),
    [(b"k", []), (b"", ["s"]), (SystemExit(143), ["s"]), (ConnectionResetError(), ["s"])],
    ids=["knows", "closes", "signal", "reset"],
)
def test_detached_sandbox_is_left_alone_only_when_its_caller_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: Any, ended: list[str]
) -> None:
    said: list[str] = []
    deleted: list[str] = []
    monkeypatch.setattr(launch, "run", lambda *_: 0)
    monkeypatch.setattr(lifecycle, "delete", lambda store, name, force, warn: deleted.append(name))
    order = Order(
        sandbox_id="s", state=str(tmp_path / "state"), root=str(tmp_path), platform="unicorn",
        detach=True,
    )  # fmt: skip

    def make() -> None:
        caller: Any = Caller(then)
        keeper._make(order, caller, lambda word, *_: said.append(word))

    if ended:
        with pytest.raises((SystemExit, OSError, keeper.Gone)):
            make()
    else:
        make()
    assert deleted == ended
    assert said[-1] == "ready"
