"""What is recorded of a name that the host has changed meanwhile: the record counts."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from gofer.p9 import constants as c
from gofer.p9.extensions import Rsparex, Tlinkx, Tmakex, Tnamex, Trenamex, Tsparex
from gofer.p9.messages import Tunlinkat
from tests.unit.gofer import harness
from tests.unit.gofer.journals import JournalClient, journalling


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the Gofer says."""
    return tmp_path / "log"


@pytest.fixture
def client(
    tree: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[JournalClient]:
    monkeypatch.setattr(harness, "_log", log.write_text)
    with journalling(tree) as made:
        yield made


def refused(client: JournalClient) -> list[int]:
    return [number for _, number in struct.iter_unpack("<QI", client.drain().failures)]


def made(client: JournalClient) -> list[int]:
    return [number for _, _, number in struct.iter_unpack("<QQQ", client.drain().made)]


def test_new_file_takes_the_place_of_the_hosts(
    client: JournalClient, tree: Path, log: Path
) -> None:
    client.ask(Tsparex(0, [3]), Rsparex)
    fd = client.take_fd()
    os.write(fd, b"the sandbox's")
    client.leave(Tnamex(3, 0, b"new", 0o640, 0, 0, 0))
    (tree / "new").write_bytes(b"the host's")
    assert refused(client) == []
    assert (tree / "new").read_bytes() == b"the sandbox's"
    assert "new" in log.read_text()
    os.close(fd)


def test_directory_of_both_stays_with_mode_and_contents(client: JournalClient, tree: Path) -> None:
    client.leave(Tmakex(0, b"new", b"", stat.S_IFDIR | 0o711, 0, 0, 1))
    (tree / "new").mkdir(mode=0o700)
    (tree / "new" / "inner").touch()
    assert made(client) == [os.stat(tree / "new").st_ino]
    assert stat.S_IMODE(os.stat(tree / "new").st_mode) == 0o711
    assert os.listdir(tree / "new") == ["inner"]


@pytest.mark.parametrize("mode", [stat.S_IFDIR | 0o755, stat.S_IFIFO | 0o600, stat.S_IFLNK | 0o777])
def test_what_is_made_takes_the_place_of_the_hosts_file(
    client: JournalClient, tree: Path, mode: int
) -> None:
    target = b"elsewhere" if stat.S_ISLNK(mode) else b""
    client.leave(Tmakex(0, b"new", target, mode, 0, 0, 1))
    (tree / "new").touch()
    assert made(client) == [os.lstat(tree / "new").st_ino]
    assert stat.S_IFMT(os.lstat(tree / "new").st_mode) == stat.S_IFMT(mode)


def test_new_link_takes_the_place_of_the_hosts(
    client: JournalClient, tree: Path, log: Path
) -> None:
    client.leave(Tlinkx(0, b"file", 0, b"new"))
    (tree / "new").touch()
    assert refused(client) == []
    assert "Tlinkx b'/new'" in log.read_text()
    assert os.path.samefile(tree / "file", tree / "new")


def test_renamed_file_takes_the_place_of_the_hosts(client: JournalClient, tree: Path) -> None:
    contents = (tree / "file").read_bytes()
    client.leave(Trenamex(0, b"file", 0, b"new", 1))
    (tree / "new").write_bytes(b"the host's")
    assert refused(client) == []
    assert (tree / "new").read_bytes() == contents
    assert not (tree / "file").exists()


def test_name_that_both_have_removed_is_no_loss(client: JournalClient, tree: Path) -> None:
    client.leave(Tunlinkat(0, b"file", 0))
    (tree / "file").unlink()
    assert refused(client) == []


def test_directory_of_the_host_is_not_taken_away(client: JournalClient, tree: Path) -> None:
    """Nor what it holds, which nobody has seen."""
    (tree / "empty").mkdir()
    client.leave(
        Tlinkx(0, b"file", 0, b"new"), Tunlinkat(0, b"empty", c.AT_REMOVEDIR),
        Tmakex(0, b"new", b"", stat.S_IFIFO | 0o600, 0, 0, 1),
    )  # fmt: skip
    (tree / "new").mkdir()
    (tree / "empty" / "inner").touch()
    assert refused(client) == [errno.EEXIST, errno.ENOTEMPTY, errno.EEXIST]
    assert (tree / "new").is_dir()
