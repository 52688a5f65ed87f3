"""Who begins has sandboxes whose roots it shows write through, as far as they can be reached."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runsc.containers.container import Store
from runsc.containers.listener import listen
from runsc.containers.processes import start_time
from runsc.containers.state import State
from runsc.launch.neighbours import ask
from tests.patience import TIMEOUT_S


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "sub").mkdir(parents=True)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "state"))


def noted(store: Store, name: str, root: Path, *, behind: bool = True) -> State:
    state = State("1.2.0", name, "/b", rootfs=str(root), written_behind=behind, phase="running")
    store.create(state)
    return state


@contextmanager
def answering(store: Store, name: str, answer: bytes) -> Iterator[list[bytes]]:
    """A sandbox, which remembers what it was asked."""
    asked: list[bytes] = []
    with listen(store.path(name, "control.sock")) as listener:
        listener.setblocking(True)

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                asked.append(client.recv(4096))
                client.sendall(answer + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def told(store: Store, *paths: Path) -> list[str]:
    """What is warned of."""
    found: list[str] = []
    ask(store, "own", [str(path) for path in paths], found.append)
    return found


@pytest.mark.parametrize("shown", ["root", "root/sub", "."])
def test_sandbox_whose_root_is_shown_is_asked_and_others_are_not(
    store: Store, root: Path, shown: str
) -> None:
    noted(store, "own", root)
    noted(store, "memory", root, behind=False)
    noted(store, "elsewhere", Path("/proc"))
    noted(store, "gone", root / "gone")
    noted(store, "other", root)
    with answering(store, "other", b"{}") as asked:
        assert told(store, root.parent / shown) == []
    assert asked == [b'{"op":"share"}\n']


def test_what_it_cannot_do_is_told(store: Store, root: Path) -> None:
    noted(store, "other", root)
    with answering(store, "other", b'{"error":"EOPNOTSUPP"}'):
        (line,) = told(store, root)
    assert line == '"other" does not share its root file system: EOPNOTSUPP'


def test_sandbox_that_is_known_elsewhere_is_told(store: Store, root: Path) -> None:
    (line,) = told(store, root)
    assert "another --root?" in line


def test_of_one_that_has_ended_all_is_written_first(store: Store, root: Path) -> None:
    state = noted(store, "other", root)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as gofer:
        state.gofer_pid, state.gofer_start = gofer.pid, start_time(gofer.pid)
        store.save(state)
        asking = threading.Thread(target=told, args=(store, root))
        asking.start()
        asking.join(0.1)
        assert asking.is_alive()
        assert gofer.stdin is not None
        gofer.stdin.close()
        asking.join(TIMEOUT_S)
        assert not asking.is_alive()
