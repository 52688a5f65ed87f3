"""A root that is written behind on a file system that gets full: what was answered is there."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.filesystems.calls import Files
from tests.contract.filesystems.layers import layered
from tests.fuzz.test_files import warm
from tests.world import World

pytestmark = pytest.mark.root

NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR
AT_REMOVEDIR = 0x200


def mounted(kind: str, folder: Path, ends: ExitStack) -> Path:
    """A file system of a few hundred inodes and some MiB."""
    place = folder / "place"
    place.mkdir()
    if kind == "overlayfs":
        (folder / "below").mkdir()
        lower = mounted("tmpfs", folder / "below", ends).parent
        return layered(place, [lower], lower / "other", ends) / "root"
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=900", "none", str(place)]
    else:
        image = folder / "image"
        with image.open("wb") as made:
            made.truncate(8 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-N", "900", image], check=True)
        command = ["mount", "-o", "loop", str(image), str(place)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no {kind} of one's own: {found.stderr.strip()}")
    ends.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
    root = place / "root"
    root.mkdir()
    return root


@pytest.fixture(params=["tmpfs", "ext4", "overlayfs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with ExitStack() as ends:
        yield mounted(request.param, tmp_path, ends)


class Program:
    """It makes and removes names until nothing fits any more, and knows what there has to be."""

    def __init__(self, files: Files, seed: int, data: int) -> None:
        self.files = files
        self.random = random.Random(seed)
        self.data = data
        self.there: dict[bytes, int] = {}
        """Names that were made, and the size of a file; -1: a directory, -2: a link."""
        self.made = 0
        self.refused = 0

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            if self.there and self.random.random() < 0.2:
                self.remove(self.random.choice(list(self.there)))
            else:
                self.made += 1
                self.make(b"n%d" % self.made)

    def remove(self, name: bytes) -> None:
        size = self.there.pop(name)
        self.files.ok("unlinkat", -100, name, AT_REMOVEDIR if size == -1 else 0)

    def make(self, name: bytes) -> None:
        kind = self.random.randrange(4)
        if kind == 0:
            made, size = self.files.call("mkdir", name, 0o755), -1
        elif kind == 1:
            made, size = self.files.call("symlink", b"text", name), -2
        elif kind == 2 and self.there:
            old = self.random.choice(list(self.there))
            made, size = self.files.call("rename", old, name), self.there[old]
            if not made:
                del self.there[old]
        else:
            made, size = self.write(name)
        if made < 0:
            assert made == -errno.ENOSPC, name
            self.refused += 1
        else:
            self.there[name] = size

    def write(self, name: bytes) -> tuple[int, int]:
        fd = self.files.open(name, NEW)
        size = 0
        if fd >= 0:
            if self.data:
                wanted = self.random.randrange(self.data)
                size = max(0, self.files.write(fd, b"x" * wanted))
            self.files.ok("close", fd)
        return min(fd, 0), size


def seen(root: Path) -> dict[bytes, int]:
    found = {}
    for path in root.iterdir():
        mode = path.lstat().st_mode
        size = path.lstat().st_size if stat.S_ISREG(mode) else -1 if stat.S_ISDIR(mode) else -2
        found[os.fsencode(path.name)] = size
    return found


@pytest.mark.parametrize("seed", range(3))
def test_who_makes_names_alone_is_told_by_the_call(root: Path, seed: int) -> None:
    """Nothing is refused later; and with room again it goes on."""
    with World(lambda world: world.export_behind(root)) as world:
        files = Files(world.program())
        warm(files)
        program = Program(files, seed, 0)
        fd = files.opened(b".")
        while program.refused < 20:
            program.go_on(50)
        assert files.call("syncfs", fd) == 0
        assert seen(root) == program.there
        for name in list(program.there)[::2]:
            program.remove(name)
        assert files.call("syncfs", fd) == 0
        program.go_on(20)
        files.ok("close", fd)
    assert seen(root) == program.there


@pytest.mark.parametrize("seed", range(3))
def test_who_writes_hears_of_it_at_the_latest_by_syncfs(root: Path, seed: int) -> None:
    """Data goes where names were promised a place."""
    with World(lambda world: world.export_behind(root)) as world:
        files = Files(world.program())
        warm(files)
        program = Program(files, seed, 60_000)
        fd = files.opened(b".")
        while program.refused < 10:
            program.go_on(program.random.randrange(30))
            told = files.call("syncfs", fd)
            missing = program.there.items() - seen(root).items()
            assert not missing or told == -errno.ENOSPC, missing
            for name, _ in missing:
                del program.there[name]
        files.ok("close", fd)
    assert seen(root) == program.there


def test_file_system_that_is_full_is_asked(root: Path) -> None:
    """Each error is that of the call, from the first one on, without anything else between."""
    with World(lambda world: world.export_behind(root)) as world:
        files = Files(world.program())
        warm(files)
        made = 0
        while files.call("mkdir", b"d%d" % made, 0o755) == 0:
            made += 1
        assert len(list(root.iterdir())) == made
        assert files.call("mkdir", b"more", 0o755) == -errno.ENOSPC
        files.ok("unlinkat", -100, b"d0", AT_REMOVEDIR)
        files.ok("mkdir", b"more", 0o755)
