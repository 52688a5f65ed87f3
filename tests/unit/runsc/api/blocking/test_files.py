"""Files, as a program without asyncio has them: what is asked for, and what is made of answers."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from runsc.api import accounts
from runsc.api.blocking import files as module
from runsc.api.blocking import watching
from runsc.api.blocking.files import Files
from runsc.api.blocking.streams import Stream
from runsc.api.blocking.watching import Watch
from runsc.api.blocking.wire import Wire
from runsc.api.errors import SandboxError
from runsc.api.values import FileChange, FilesystemEvent
from sentry.abi.inotify import IN_CREATE, IN_ISDIR, IN_MODIFY, IN_OPEN, IN_Q_OVERFLOW
from sentry.control import answers
from sentry.control.answers import FileEvent
from sentry.control.orders import FileOrder
from sentry.control.protocol import Reply
from tests.patience import TIMEOUT_S
from tests.unit.runsc.api.standin import Filed, StandIn, entry, lines, standing_in

PASSWD = b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n"
GROUP = b"wheel:x:10:bob,alice\nalice:x:1001:\n"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[StandIn]:
    with standing_in(tmp_path) as made:
        yield made


@pytest.fixture
def files(sandbox: StandIn) -> Files:
    return Files(sandbox.path, None)


def giving(data: bytes, error: str = "") -> Filed:
    """Bytes for who reads."""

    def filed(_: StandIn, order: FileOrder, fds: list[int]) -> Reply:
        left = data[: order.size] if order.size else data
        while left:
            try:
                left = left[os.write(fds[0], left) :]
            except BrokenPipeError:
                break
        return Reply(error=error)

    return filed


def last(sandbox: StandIn) -> FileOrder:
    order = sandbox.requests[-1].file
    assert order is not None
    return order


def test_a_file_is_read_as_text_bytes_or_pieces(sandbox: StandIn, files: Files) -> None:
    sandbox.filed = giving("ä\n".encode())
    assert files.read("/f") == "ä\n"
    assert files.read(b"/f", format="bytes", offset=1) == "ä\n".encode()
    assert last(sandbox).offset == 1
    sandbox.filed = giving(bytes(5 << 20))
    assert sum(map(len, files.stream("/f"))) == 5 << 20


def test_more_than_is_allowed_is_an_error(sandbox: StandIn, files: Files) -> None:
    sandbox.filed = giving(bytes(100))
    assert len(files.read("/f", limit=100)) == 100
    with pytest.raises(OSError, match="/f") as raised:
        files.read("/f", limit=99)
    assert raised.value.errno == errno.EFBIG


def test_what_comes_without_end_is_not_collected(sandbox: StandIn, files: Files) -> None:
    def endless(_: StandIn, __: FileOrder, fds: list[int]) -> Reply:
        while True:
            try:
                os.write(fds[0], bytes(1 << 16))
            except BrokenPipeError:
                return Reply()

    sandbox.filed = endless
    with pytest.raises(OSError, match="/f") as raised:
        files.read("/f", limit=1 << 20)
    assert raised.value.errno == errno.EFBIG


def test_an_errno_is_the_exception_of_the_host(sandbox: StandIn, files: Files) -> None:
    sandbox.filed = giving(b"", "ENOENT")
    with pytest.raises(FileNotFoundError) as raised:
        files.read("/none")
    assert raised.value.filename == "/none"
    assert not files.exists("/none")
    with pytest.raises(FileNotFoundError, match="'/a' -> '/b'"):
        files.rename("/a", "/b")
    sandbox.filed = giving(b"", "the container is ending")
    with pytest.raises(SandboxError, match="ending"):
        files.stat("/f")


def test_what_no_path_or_size_is_never_leaves_this_process(sandbox: StandIn, files: Files) -> None:
    with pytest.raises(ValueError, match="NUL"):
        files.read("/a\0b")
    with pytest.raises(OSError) as raised:
        files.write("/" + "a" * 4096, b"")
    assert raised.value.errno == errno.ENAMETOOLONG
    with pytest.raises(ValueError, match="limit"):
        files.read("/f", limit=-1)
    with pytest.raises(ValueError, match="depth"):
        files.list("/", depth=0)
    with pytest.raises(ValueError, match="mode"):
        files.write("/f", b"", mode=0o4755)
    assert sandbox.requests == []


def test_what_is_written_comes_whole_and_folders_are_made(sandbox: StandIn, files: Files) -> None:
    folders: list[bytes] = []
    found: list[bytes] = []

    def filed(_: StandIn, order: FileOrder, fds: list[int]) -> Reply:
        if order.do == "make":
            folders.append(order.path)
            return Reply()
        if not folders:
            return Reply(error="ENOENT")
        data = b""
        while piece := os.read(fds[0], 1 << 20):
            data += piece
        found.append(data)
        return Reply()

    sandbox.filed = filed
    files.write("/a/b", "text")
    files.write("/a/b", iter([b"1", b"2" * (3 << 20)]))
    files.write("c", b"x", append=True, mode=0o600)

    assert folders == [b"/a", b"/a"]
    assert found == [b"text", b"1" + b"2" * (3 << 20), b"x"]
    assert (last(sandbox).append, last(sandbox).mode) == (True, 0o600)


def test_users_are_found_by_their_names_inside(sandbox: StandIn, files: Files) -> None:
    def filed(_: StandIn, order: FileOrder, fds: list[int]) -> Reply:
        texts = {b"/etc/passwd": PASSWD, b"/etc/group": GROUP}
        if order.path in texts:
            os.write(fds[0], texts[order.path])
        return Reply()

    sandbox.filed = filed
    files.remove("/f", user="alice")
    assert (last(sandbox).uid, last(sandbox).gid, last(sandbox).groups) == (1000, 1001, (10,))
    files.remove("/f", user=5)
    assert (last(sandbox).uid, last(sandbox).gid) == (5, 5)
    Files(sandbox.path, "7:8").remove("/f")
    assert (last(sandbox).uid, last(sandbox).gid) == (7, 8)
    with pytest.raises(SandboxError, match="'nobody-here'"):
        files.remove("/f", user="nobody-here")


@pytest.mark.parametrize(
    ("error", "data", "why"),
    [
        ("EINVAL", b"", "/etc/passwd: Invalid argument"),
        ("", PASSWD + bytes(accounts.MAX_BYTES), "/etc/passwd: File too large"),
    ],
    ids=["refused", "large"],
)
def test_what_is_no_list_of_users_is_an_error_that_says_so(
    sandbox: StandIn, files: Files, error: str, data: bytes, why: str
) -> None:
    sandbox.filed = giving(data, error)

    with pytest.raises(SandboxError, match=why):
        files.remove("/f", user="alice")

    assert last(sandbox).regular


def test_a_list_of_users_that_never_comes_is_not_waited_for(
    sandbox: StandIn, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may serve it (fuse), one byte after the other."""
    given_up = threading.Event()

    def filed(_: StandIn, order: FileOrder, fds: list[int]) -> Reply:
        os.write(fds[0], b"r")
        given_up.wait(TIMEOUT_S)
        return Reply()

    sandbox.filed = filed
    monkeypatch.setattr(module, "ACCOUNTS_S", 0.0)
    try:
        with pytest.raises(SandboxError, match="does not answer"):
            files.remove("/f", user="alice")
    finally:
        given_up.set()


def test_a_listing_is_values(sandbox: StandIn, files: Files) -> None:
    sandbox.filed = giving(
        lines(
            entry(b"/d/x", stat.S_IFDIR | 0o755),
            entry(b"/d/\xff", stat.S_IFREG | 0o4755, size=7, uid=1, gid=2, modified_ns=3 * 10**9),
        )
    )
    first, second = files.list("/d", depth=3)

    assert (first.path, first.name, first.type, first.target) == ("/d/x", "x", "dir", None)
    assert (os.fsencode(second.path), second.mode, second.type) == (b"/d/\xff", 0o4755, "file")
    assert (second.size, second.uid, second.gid, second.modified) == (7, 1, 2, 3.0)
    assert last(sandbox).depth == 3
    with pytest.raises(OSError) as raised:
        files.list("/d", limit=1)
    assert raised.value.errno == errno.EOVERFLOW


LONG = lines(entry(b"/d/" + b"x" * 9000, stat.S_IFREG))


@pytest.mark.parametrize("said", [b"nonsense\n", b'{"path": 5}\n', b"x" * (5 << 20), LONG])
def test_a_listing_that_is_none_is_an_error(
    sandbox: StandIn, files: Files, said: bytes
) -> None:
    sandbox.filed = giving(said)
    with pytest.raises(SandboxError):
        files.list("/d")


def test_differences_are_in_order(sandbox: StandIn, files: Files) -> None:
    sandbox.filed = giving(
        lines(
            answers.FileChange(b"/b", "removed"),
            answers.FileChange(b"/a", "added", stat.S_IFREG | 0o644),
        )
    )
    assert files.diff() == [
        FileChange("/a", "added", "file"), FileChange("/b", "removed", "unknown"),
    ]  # fmt: skip

    sandbox.filed = giving(lines(answers.FileChange(b"/b", "eaten")))
    with pytest.raises(SandboxError, match="eaten"):
        files.diff()


def test_events_come_by_an_iterator_or_all_that_there_are(sandbox: StandIn, files: Files) -> None:
    told = lines(
        FileEvent(IN_CREATE | IN_ISDIR, b"d"),
        FileEvent(IN_OPEN, b"d"),
        FileEvent(IN_MODIFY, b"f"),
        FileEvent(IN_Q_OVERFLOW),
    )
    sandbox.filed = giving(told)
    expected = [
        FilesystemEvent("create", "d", True),
        FilesystemEvent("write", "f"),
        FilesystemEvent("overflow", ""),
    ]
    with files.watch_dir("/x") as watch:
        assert watch.get_new_events(timeout=TIMEOUT_S) == expected
        assert watch.get_new_events() == []
    with files.watch_dir("/x") as watch:
        assert list(watch) == expected
    sandbox.filed = giving(b"", "ENOTDIR")
    with pytest.raises(NotADirectoryError):
        files.watch_dir("/x")


def test_files_that_are_only_read_do_not_prolong_the_time_for_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    out, into = os.pipe()
    now_s, waited = 0.0, []

    def ready(wanted: dict[int, int], seconds: float) -> dict[int, int]:
        nonlocal now_s
        waited.append(seconds)
        assert len(waited) < 10
        now_s += 1
        os.write(into, lines(FileEvent(IN_OPEN, b"f")))
        return wanted

    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now_s), raising=False)
    monkeypatch.setattr(watching, "ready", ready)
    with Watch(Wire(ours), Stream(out, watching.nothing)) as watch, theirs:
        assert watch.get_new_events(timeout=3) == []
    os.close(into)
    assert waited == [3, 2, 1]


def test_a_download_makes_what_the_sandbox_names_below_one_place(
    sandbox: StandIn, files: Files, tmp_path: Path
) -> None:
    names = [
        entry(b"/d/in", stat.S_IFDIR | 0o755),
        entry(b"/d/in/f", stat.S_IFREG | 0o4640),
        entry(b"/d/link", stat.S_IFLNK | 0o777),
    ]

    def filed(_: StandIn, order: FileOrder, fds: list[int]) -> Reply:
        if order.do == "stat":
            return Reply(file=entry(b"/d", stat.S_IFDIR | 0o755))
        os.write(fds[0], lines(*names) if order.do == "list" else b"data")
        return Reply()

    sandbox.filed = filed
    files.download("/d", tmp_path / "here")
    assert sorted(os.listdir(tmp_path / "here")) == ["in"]
    file = tmp_path / "here" / "in" / "f"
    assert (file.read_bytes(), file.stat().st_mode & 0o7777) == (b"data", 0o640)

    with pytest.raises(FileExistsError):
        files.download("/d", tmp_path / "here")
    with pytest.raises(OSError) as raised:
        files.download("/d", tmp_path / "little", max_bytes=3)
    assert raised.value.errno == errno.EFBIG
    for hostile in (b"/d/../out", b"/elsewhere", b"/d//x", b"/d/in/../../out"):
        names[2:] = [entry(hostile, stat.S_IFREG | 0o644)]
        with pytest.raises(SandboxError, match="no name"):
            files.download("/d", tmp_path / f"hostile-{hostile.hex()}")
    assert not list(tmp_path.glob("**/out")) and not (tmp_path / "elsewhere").exists()


def test_an_upload_is_folders_and_files(sandbox: StandIn, files: Files, tmp_path: Path) -> None:
    (tmp_path / "tree" / "in").mkdir(parents=True)
    (tmp_path / "tree" / "in" / "f").write_bytes(b"1")
    (tmp_path / "tree" / "link").symlink_to("in")
    os.mkfifo(tmp_path / "tree" / "fifo")
    asked: list[tuple[str, bytes]] = []

    def filed(_: StandIn, order: FileOrder, fds: list[int]) -> Reply:
        asked.append((order.do, order.path))
        if order.do == "write":
            asked.append(("data", os.read(fds[0], 100)))
        return Reply()

    sandbox.filed = filed
    files.upload(tmp_path / "tree", "/t")

    assert asked == [
        ("make", b"/t"), ("make", b"/t/in"), ("make", b"/t/in"), ("write", b"/t/in/f"),
        ("data", b"1"),
    ]  # fmt: skip


def test_what_does_not_go_on_is_given_up(
    sandbox: StandIn, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def filed(_: StandIn, order: FileOrder, fds: list[int]) -> Reply:
        over.wait()
        return Reply()

    sandbox.filed = filed
    monkeypatch.setattr("runsc.api.blocking.files.ANSWER_S", 0.1)
    asked: list[Callable[[], object]] = [
        lambda: files.stat("/f"), lambda: files.read("/f"), lambda: files.list("/"),
        lambda: files.write("/f", bytes(4 << 20)),
    ]  # fmt: skip
    for each in asked:
        with pytest.raises(SandboxError, match="does not answer"):
            each()
    over.set()
    sandbox.settle()
