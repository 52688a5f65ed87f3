"""The pump between the container's terminal and the host's."""

from __future__ import annotations

import os
import pty
import select
from pathlib import Path

from sentry.fs.devpts.console import PATIENCE_NS, Console
from sentry.fs.devpts.filesystem import DevPtsFs
from sentry.platform.host_io import HostIO, HostThreads
from sentry.vfs.interface import Owner
from tests.world import World


def test_rest_of_the_screen_whose_turn_comes_late_is_written_nowhere_else(tmp_path: Path) -> None:
    """The number of the host's terminal may be another file's then."""
    with World(stepped=True) as world:
        master, wire = pty.openpty()
        silent, w = os.pipe()
        threads = HostThreads(world.loop, lambda name: name, 1)
        io, ended = HostIO(threads), []
        world.loop.spawn(io.read(silent, 1, None), "who has the thread")
        world.settle()
        console = Console(world.loop, wire, DevPtsFs(world.vfs, ""), Owner(0, 0), io)
        console.start()
        console.terminal.show(b"late")
        console.close(lambda: ended.append(True))
        world.loop.advance(PATIENCE_NS)
        assert ended
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)  # with its number, if free
        os.write(w, b"x")
        while not select.select([master], [], [], 0)[0]:
            world.loop.turn()
        assert os.read(master, 100) == b"late"
        assert (tmp_path / "other").read_bytes() == b""
        threads.close()
        for fd in (master, silent, w, other):
            os.close(fd)
