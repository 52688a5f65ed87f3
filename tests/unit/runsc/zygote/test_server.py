"""The process that listens: where, for whom, and until when."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runsc.errors import RuntimeFailure
from runsc.zygote import asking, client, place, server
from runsc.zygote.protocol import REFUSED
from tests.patience import TIMEOUT_S


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "folder" / "zygote@0"
    monkeypatch.setattr(place, "socket_path", lambda: str(found))
    return found


def test_the_socket_is_the_users_alone_and_goes_in_the_end(path: Path) -> None:
    with server.listening():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700

    assert not path.exists()


def test_two_do_not_listen_at_one_place(path: Path) -> None:
    with server.listening():
        with pytest.raises(RuntimeFailure, match="runs already"), server.listening():
            pass
        assert path.exists()


def test_what_a_killed_one_has_left_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path))

    with server.listening() as sock:
        assert sock.getsockname() == str(path)


def test_one_that_accepts_nobody_any_more_runs_still(path: Path) -> None:
    with server.listening() as sock:
        sock.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
            waiting.connect(str(path))
            with pytest.raises(RuntimeFailure, match="runs already"), server.listening():
                pass


def test_a_folder_of_others_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)

    with pytest.raises(RuntimeFailure, match="others may write"), server.listening():
        pass


def test_the_socket_of_another_is_not_removed(path: Path) -> None:
    with server.listening():
        path.unlink()
        path.touch()

    assert path.exists()


def test_a_successor_gets_the_socket_and_removes_it(path: Path) -> None:
    with server.listening() as sock:
        with server.listening(os.dup(sock.fileno())) as again:
            assert again.getsockname() == str(path)
        assert not path.exists()


def test_who_comes_before_it_is_ready_is_refused_at_once(path: Path) -> None:
    program = """
import signal, socket, sys
from runsc.zygote import place, server

place.socket_path = lambda: sys.argv[1]
with server.listening() as sock:
    def ask():
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asking.connect(sys.argv[1])
        return asking
    refusing = server.refuse(sock.fileno())
    print(ask().recv(1), ask().recv(1))
    server.answer(refusing)
    with ask() as asking:
        sock.accept()[0].send(b"heard")
        print(asking.recv(5))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True
    )

    assert done.stdout == "b'' b''\nb'heard'\n"


class Quiet:
    """A poll(2) that counts no more than Linux's, and where something comes at the second time."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def poll(self, wait_ms: float) -> list[tuple[int, int]]:
        assert wait_ms < 1 << 31
        self.waits.append(wait_ms)
        return [(3, select.POLLIN)] if len(self.waits) == 2 else []


def test_a_wait_of_years_is_one_of_days() -> None:
    quiet: Any = Quiet()
    assert server._ready(quiet, time.monotonic() + 1e9) == {3: select.POLLIN}
    assert quiet.waits == [server.DAY_S * 1000] * 2

    late: Any = Quiet()
    assert server._ready(late, 0.0) == {}
    assert late.waits == [0.0]


def test_nobody_is_asked_where_nobody_listens() -> None:
    assert asking.about() is None
    asking.stop()


def test_one_that_does_not_answer_is_not_said_to_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.01)
    with server.listening(), pytest.raises(RuntimeFailure, match="does not answer"):
        asking.stop()


TOLD_WHILE_IT_FORKS = """
import os, signal, sys
from runsc.zygote import files, place, server

place.socket_path = lambda: sys.argv[1]
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
with server.listening() as sock:
    server.serve(sock, 60, server.Prepared(lambda *_: 0, files.Files({})))
print("ended")
"""


def _asked_once(program: str, path: Path) -> None:
    """Somebody connects to a zygote that this program is: it ends, and says so."""
    words = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdout is not None
        assert zygote.stdout.readline().startswith("listening")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking_it:
            asking_it.connect(str(path))
            try:
                assert zygote.wait(TIMEOUT_S) == 0
            finally:
                zygote.kill()
        assert zygote.stdout.read() == "ended\n"


WITHOUT_DESCRIPTORS = """
import errno, os, signal, socket, sys, time
from runsc.zygote import files, place, server

class Full(socket.socket):
    def accept(self):
        raise OSError(errno.ENFILE, "no descriptor is left")

def sleep(seconds):
    slept.append(seconds)
    if len(slept) == 3:
        os.kill(os.getpid(), signal.SIGTERM)

place.socket_path = lambda: sys.argv[1]
slept, time.sleep = [], sleep
with server.listening() as sock:
    full = Full(fileno=os.dup(sock.fileno()))
    server.serve(full, 60, server.Prepared(lambda *_: 0, files.Files({})))
print("ended" if slept == [server.AGAIN_S] * 3 else slept)
"""


def test_without_a_descriptor_it_looks_again_later(path: Path) -> None:
    _asked_once(WITHOUT_DESCRIPTORS, path)


def test_told_to_end_while_it_forks_it_ends(path: Path) -> None:
    _asked_once(TOLD_WHILE_IT_FORKS, path)
    assert not path.exists()


TOLD_WHILE_IT_LOOKS = """
import os, signal, sys
from runsc.zygote import files, place, server

class Changed(files.Files):
    def have_changed(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return True

place.socket_path = lambda: sys.argv[1]
with server.listening() as sock:
    server.serve(sock, 60, server.Prepared(lambda *_: 0, object.__new__(Changed)))
print("ended")
"""


def test_told_to_end_before_it_is_replaced_it_ends(path: Path) -> None:
    _asked_once(TOLD_WHILE_IT_LOOKS, path)
    assert not path.exists()


REPLACED = """
import os, socket, sys
from runsc.zygote import beginning, files, place, server

class Changed(files.Files):
    def have_changed(self):
        return True

def execute(path, words, environment):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(sys.argv[1])
        refused = asking.recv(1) == b""  # at once: nobody else is there
    [refusing] = [word.partition("=")[2] for word in words if word.startswith("--refusing=")]
    assert refused and os.get_inheritable(int(refusing))
    [claim] = [word.partition("=")[2] for word in words if word.startswith("--claim=")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(beginning.claim_name())
    print("ended" if os.get_inheritable(int(claim)) else words, flush=True)
    os._exit(0)

place.socket_path = lambda: sys.argv[1]
beginning.claim_name = lambda: f"\\0runsc-test-{os.getpid()}"
os.execve = execute
with server.listening() as sock:
    server.serve(sock, 60, server.Prepared(lambda *_: 0, object.__new__(Changed)))
"""


def test_one_that_is_replaced_leaves_a_claim_to_its_successor(path: Path) -> None:
    _asked_once(REPLACED, path)


ASKED = """
import sys
from runsc.zygote import files, place, server

place.socket_path = lambda: sys.argv[1]
with server.listening() as sock:
    server.serve(sock, 2, server.Prepared(lambda *_: 0, files.Files({})))
"""


def test_who_is_refused_does_not_keep_it(path: Path) -> None:
    words = [sys.executable, "-c", ASKED, str(path)]
    refused = 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdout is not None
        assert zygote.stdout.readline().startswith("listening")
        for _ in range(40):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking_it:
                try:
                    asking_it.connect(str(path))
                    asking_it.send(b"what is no request")
                    refused += asking_it.recv(1000).startswith(REFUSED)
                except OSError:  # it has ended
                    break
            with suppress(subprocess.TimeoutExpired):
                zygote.wait(0.25)
        else:
            zygote.kill()
            pytest.fail("it is there still")
        assert zygote.wait() == 0
    assert refused


STARTED = """
import os, sys
from runsc.zygote import files, forked, place, server

place.socket_path = lambda: sys.argv[1]
forked.serve = lambda conn, body, about, telling: os.write(telling, bytes(1)) - 1
with server.listening() as sock:
    server.serve(sock, 2, server.Prepared(lambda *_: 0, files.Files({})))
"""


def test_who_starts_from_it_keeps_it(path: Path) -> None:
    words = [sys.executable, "-c", STARTED, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdout is not None
        try:
            assert zygote.stdout.readline().startswith("listening")
            for _ in range(12):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking_it:
                    asking_it.connect(str(path))
                with pytest.raises(subprocess.TimeoutExpired):
                    zygote.wait(0.25)
            assert zygote.wait(60) == 0
        finally:
            zygote.kill()


SERVES = """
import os, sys
from runsc import __main__ as program

found = []
program._find_modules = lambda: found.append("compiled")
program._code = lambda order: 0
os._exit = lambda code: None
sys.argv = ["runsc", *sys.argv[1:]]
program.main()
print(*found)
"""


@pytest.mark.parametrize(("words", "found"), [("zygote serve", "compiled"), ("zygote status", "")])
def test_who_is_forked_has_what_was_compiled_ahead(words: str, found: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVES, *words.split()], check=True, capture_output=True, text=True
    )

    assert done.stdout.strip() == found
