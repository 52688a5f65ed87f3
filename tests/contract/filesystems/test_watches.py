"""inotify(7): what happens to a file and in a directory is told, in its order."""

from __future__ import annotations

import errno
import struct

import pytest

from sentry.abi.fcntl import O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY
from tests.contract.filesystems.calls import Files

ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = 1, 2, 4, 8, 16, 32
MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = 64, 128, 256, 512, 1024, 2048
IGNORED, ISDIR = 0x8000, 0x40000000
EVERYTHING = 0xFFF
Event = tuple[int, bytes]


class Watch:
    """One inotify."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.fd = files.ok("inotify_init1", O_NONBLOCK)
        self.cookies: list[int] = []

    def add(self, path: bytes, mask: int) -> int:
        return self.files.ok("inotify_add_watch", self.fd, path, mask)

    def events(self) -> list[Event]:
        """What has come."""
        buffer = self.files.program.buffer(4096)
        size = self.files.call("read", self.fd, buffer, 4096)
        if size == -errno.EAGAIN:
            return []
        raw, found = self.files.program.read(buffer, size), []
        while raw:
            _, mask, cookie, length = struct.unpack_from("<iIII", raw)
            found.append((mask, raw[16 : 16 + length].rstrip(b"\0")))
            self.cookies.append(cookie)
            raw = raw[16 + length :]
        return found


@pytest.fixture
def watch(files: Files) -> Watch:
    """It watches nothing yet."""
    return Watch(files)


def test_life_of_a_file_is_told_in_its_directory(files: Files, watch: Watch) -> None:
    watch.add(b"/dir", EVERYTHING)
    fd = files.opened(b"/dir/f", O_CREAT | O_RDWR)
    files.write(fd, b"x")
    files.read(fd, 1, 0)
    files.ok("fchmod", fd, 0o600)
    files.ok("ftruncate", fd, 0)
    files.ok("close", fd)
    files.ok("unlink", b"/dir/f")
    assert watch.events() == [
        (CREATE, b"f"), (OPEN, b"f"), (MODIFY, b"f"), (ACCESS, b"f"), (ATTRIB, b"f"),
        (MODIFY, b"f"), (CLOSE_WRITE, b"f"), (DELETE, b"f"),
    ]  # fmt: skip


def test_file_that_was_there_is_watched_by_itself(files: Files, watch: Watch) -> None:
    watch.add(b"/old", MODIFY | ATTRIB | MOVE_SELF | DELETE_SELF)
    fd = files.opened(b"/old", O_WRONLY)
    files.write(fd, b"x")
    files.ok("close", fd)
    files.ok("link", b"/old", b"/second")
    files.ok("rename", b"/old", b"/moved")
    files.ok("unlink", b"/second")
    files.ok("unlink", b"/moved")
    assert watch.events() == [
        (MODIFY, b""), (ATTRIB, b""), (MOVE_SELF, b""), (ATTRIB, b""), (DELETE_SELF, b""),
        (IGNORED, b""),
    ]  # fmt: skip  (the last two ATTRIB are one)


def test_file_hears_of_a_new_name_before_its_directory(files: Files, watch: Watch) -> None:
    watch.add(b"/dir", CREATE)
    watch.add(b"/old", ATTRIB)
    files.ok("link", b"/old", b"/dir/second")
    assert watch.events() == [(ATTRIB, b""), (CREATE, b"second")]


def test_what_is_replaced_hears_it_before_what_was_moved(files: Files, watch: Watch) -> None:
    for path in (b"/old", b"/dir/inner", b"/empty", b"/dir/sub"):
        watch.add(path, ATTRIB | MOVE_SELF | DELETE_SELF)
    files.ok("rename", b"/old", b"/dir/inner")
    files.ok("rename", b"/empty", b"/dir/sub")
    ends = [(MOVE_SELF, b""), (DELETE_SELF, b""), (IGNORED, b"")]
    assert watch.events() == [(ATTRIB, b""), *ends, (ATTRIB | ISDIR, b""), *ends]


def test_watch_stays_when_what_it_watches_is_closed(files: Files, watch: Watch) -> None:
    watch.add(b"/dir", CLOSE_NOWRITE | DELETE_SELF | CREATE)
    watch.add(b"/old", CLOSE_NOWRITE | DELETE_SELF)
    for path in (b"/dir", b"/old"):
        files.ok("close", files.opened(path, O_RDONLY))
    files.ok("mkdir", b"/dir/new", 0o755)
    files.ok("unlink", b"/old")
    assert watch.events() == [
        (CLOSE_NOWRITE | ISDIR, b""), (CLOSE_NOWRITE, b""), (CREATE | ISDIR, b"new"),
        (DELETE_SELF, b""), (IGNORED, b""),
    ]  # fmt: skip


def test_file_without_a_name_is_gone_when_it_is_closed(files: Files, watch: Watch) -> None:
    watch.add(b"/old", DELETE_SELF)
    fd = files.opened(b"/old", O_RDONLY)
    files.ok("unlink", b"/old")
    assert watch.events() == []
    files.ok("close", fd)
    assert watch.events() == [(DELETE_SELF, b""), (IGNORED, b"")]


def test_move_is_a_pair_with_one_cookie(files: Files, watch: Watch) -> None:
    watch.add(b"/dir", MOVED_FROM | MOVED_TO)
    watch.add(b"/empty", MOVED_FROM | MOVED_TO)
    files.ok("rename", b"/dir/inner", b"/empty/x")
    files.ok("rename", b"/dir/sub", b"/dir/bus")
    assert watch.events() == [
        (MOVED_FROM, b"inner"), (MOVED_TO, b"x"), (MOVED_FROM | ISDIR, b"sub"),
        (MOVED_TO | ISDIR, b"bus"),
    ]  # fmt: skip
    first, second, third, fourth = watch.cookies
    assert first == second != third == fourth


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("mkdir", (b"/dir/d", 0o755), [(CREATE | ISDIR, b"d")]),
        ("rmdir", (b"/dir/sub",), [(DELETE | ISDIR, b"sub")]),
        ("symlink", (b"x", b"/dir/l"), [(CREATE, b"l")]),
        ("link", (b"/old", b"/dir/h"), [(CREATE, b"h")]),
        ("mknod", (b"/dir/p", 0o010600, 0), [(CREATE, b"p")]),
        ("truncate", (b"/dir/inner", 1), [(MODIFY, b"inner")]),
        ("chmod", (b"/dir/sub", 0o700), [(ATTRIB | ISDIR, b"sub")]),
        ("rename", (b"/old", b"/dir/inner"), [(MOVED_TO, b"inner")]),
        ("unlink", (b"/dir/none",), []),
        ("mkdir", (b"/dir/sub", 0o755), []),
    ],
)
def test_each_change_of_names_is_told_once(
    files: Files, watch: Watch, name: str, values: tuple[int | bytes, ...], told: list[Event]
) -> None:
    watch.add(b"/dir", EVERYTHING & ~(OPEN | ACCESS | CLOSE_NOWRITE))
    files.call(name, *values)
    assert watch.events() == told


def test_watch_that_is_removed_says_so_and_no_more(files: Files, watch: Watch) -> None:
    number = watch.add(b"/dir", CREATE)
    assert watch.add(b"/dir/.", DELETE) == number
    files.fill(b"/dir/f")
    files.ok("inotify_rm_watch", watch.fd, number)
    files.ok("unlink", b"/dir/f")
    assert watch.events() == [(IGNORED, b"")]
    assert files.call("inotify_rm_watch", watch.fd, number) == -errno.EINVAL
    assert files.call("inotify_add_watch", watch.fd, b"/none", CREATE) == -errno.ENOENT
    assert files.call("inotify_add_watch", watch.fd, b"/dir", 0) == -errno.EINVAL


def test_what_another_process_does_is_told(files: Files, watch: Watch) -> None:
    watch.add(b"/dir", CREATE)
    waiting = files.place(struct.pack("<ihh", watch.fd, 1, 0))
    poll = files.begin("poll", waiting, 1, -1 & 0xFFFFFFFF)
    assert not poll.done
    files.sibling().fill(b"/dir/f")
    assert poll.wait() == 1
    assert watch.events() == [(CREATE, b"f")]
