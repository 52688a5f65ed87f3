"""Containers on disk that are this process."""

from __future__ import annotations

import os

from runsc.containers.container import Store
from runsc.containers.processes import start_time
from runsc.containers.state import State


def running(store: Store, name: str) -> None:
    pid = os.getpid()
    store.create(
        State("1.2.0", name, "/", pid=pid, pid_start=start_time(pid), phase="running")
    )
