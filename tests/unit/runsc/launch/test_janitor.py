"""What the process keeps open that cleans up after a command line that is killed."""

from __future__ import annotations

import os
from pathlib import Path

from runsc.containers.container import Store
from runsc.containers.state import State
from runsc.launch.janitor import keep_clean
from runsc.log import Log
from tests.patience import TIMEOUT_S


def test_it_has_neither_descriptors_nor_the_lock_of_the_command_line(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path)), State("1.2.0", "a", "/b")
    store.create(state)
    reader, writer = os.pipe()
    held = store.held("a")
    held.__enter__()
    with keep_clean(store, state, Log(None, "text", False)):
        os.close(writer)
        held.__exit__()

        assert os.read(reader, 1) == b""
        store.lock("a", TIMEOUT_S).__exit__()

    os.close(reader)
    assert [each.id for each in store.all()] == ["a"]
