"""Trees of files in memory, out of their records."""

from __future__ import annotations

from typing import Any

from sentry.abi.stat import S_IFDIR, S_IFREG
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.state.growing import Memory
from sentry.state.records import Entry, Node
from tests.unit.state.test_namespaces import rights
from tests.unit.state.test_pages import run
from tests.world import World

TIMES = (1, 2, 3, 4)


def test_hard_links_count_as_inodes_again() -> None:
    top, twice = Node(S_IFDIR | 0o755, 0, 0, 1, 2, TIMES), Node(S_IFREG, 0, 0, 2, 2, TIMES)
    with World() as world:
        fs, loader = TmpFs.make(world.vfs), type("Loader", (), {"rights": rights()})
        records = [Entry(top, [(b"one", 1), (b"two", 1)]), Entry(twice)]
        files: list[Any] = run(Memory(loader, fs, records).load())  # type: ignore[arg-type]
        assert fs.inodes_used == 3
        files[0].unlink(b"one", files[1])
        assert fs.inodes_used == 2
