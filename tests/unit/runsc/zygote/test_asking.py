"""Who asks for a zygote, or for its end, while one begins."""

from __future__ import annotations

import _socket
import io
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runsc.errors import RuntimeFailure
from runsc.zygote import asking, beginning, place


@pytest.mark.parametrize("ask", [asking.start, asking.stop])
def test_one_that_does_not_listen_in_time_is_told(
    ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning, "claim_name", lambda: f"\0runsc-test-{os.getpid()}")
    monkeypatch.setattr(asking, "BEGIN_S", 0.001)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as claim:
        claim.bind(beginning.claim_name())
        claim.listen()

        with pytest.raises(RuntimeFailure, match="does not listen yet"):
            ask()


def test_successor_of_one_whose_program_has_changed_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = tmp_path / "zygote", f"\0runsc-test-{os.getpid()}"
    monkeypatch.setattr(place, "socket_path", lambda: str(path))
    monkeypatch.setattr(beginning, "claim_name", lambda: name)
    told = "7 1700000000 2"

    def replaced(zygote: socket.socket, claim: socket.socket) -> None:
        """It answers nobody until somebody has asked how far it is."""
        zygote.accept()[0].close()
        with claim:
            asks, _ = claim.accept()
        asks.close()
        answers, _ = zygote.accept()
        pidfd = os.pidfd_open(os.getpid())
        with answers:
            answers.recv(100)
            socket.send_fds(answers, [told.encode()], [pidfd])
        os.close(pidfd)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as zygote:
        zygote.bind(str(path))
        zygote.listen()
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        claim.bind(name)
        claim.listen()
        thread = threading.Thread(target=replaced, args=(zygote, claim), daemon=True)
        thread.start()
        found = asking.about()
        assert found is not None
        thread.join()

    assert found == asking.About(7, 1.7e9, 2)


class Begun:
    """In place of the process that becomes the zygote: it listens at once."""

    def __init__(self, words: list[str], **how: Any) -> None:
        self.words, self.fds = words, how["pass_fds"]
        with pytest.raises(OSError, match="in use"):
            beginning.claimed()
        self.stdout = io.BytesIO(b"listening\n")
        self.stderr = io.BytesIO()
        began.append(self)


began: list[Begun] = []


def test_start_has_the_claim_so_that_of_two_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "socket_path", lambda: str(tmp_path / "zygote"))
    monkeypatch.setattr(beginning, "claim_name", lambda: f"\0runsc-test-{os.getpid()}")
    monkeypatch.setattr(subprocess, "Popen", Begun)
    began.clear()

    asking.start()

    [process] = began
    assert process.words[-1] == f"--claim={process.fds[0]}"
    beginning.claimed().close()  # ours has been closed: it is the process's


def test_start_waits_for_what_another_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which came first after both had seen that there was none."""
    monkeypatch.setattr(place, "socket_path", lambda: str(tmp_path / "zygote"))
    monkeypatch.setattr(beginning, "claim_name", lambda: f"\0runsc-test-{os.getpid()}")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("another one"))
    other = asking.About(7, 1.7e9, 2)
    answers: list[asking.About | None] = [None, other]
    held: list[_socket.socket] = []
    waits = asking._await_beginning

    def about() -> asking.About | None:
        if not held:
            held.append(beginning.claimed())
        return answers.pop(0)

    def await_beginning() -> None:
        for claim in held:
            claim.close()
        waits()

    monkeypatch.setattr(asking, "about", about)
    monkeypatch.setattr(asking, "_await_beginning", await_beginning)
    asking.start()
    assert answers == []
