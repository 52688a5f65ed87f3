"""A process beside a further container that ends before it has said a word."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from runsc.errors import RuntimeFailure
from runsc.filters import Switches
from runsc.launch import isolation
from runsc.launch.beside import Processes
from tests.patience import TIMEOUT_S


def _that_ends(_: object) -> int:
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return pid


def test_gofer_that_ends_before_its_hooks_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "spawn", _that_ends)
    monkeypatch.setattr(isolation, "freeze_heap", lambda: None)
    state: Any = SimpleNamespace(id="c")
    unused: Any = SimpleNamespace(switches=Switches())
    processes = Processes(unused, state, unused, unused, outlives=True)
    processes.terms = msgspec.structs.replace(processes.terms, before_gofer=lambda: "")

    with processes.closing:
        processes.gofer((), 2, 0)
        processes._hold.settimeout(TIMEOUT_S)
        with pytest.raises(RuntimeFailure, match=r"^the gofer process has ended$"):
            processes.let_go_on()
    processes.end()
