"""A task whose root is a tree of this host, served by a real Gofer."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gofer.attachment import Attachment, CacheMode
from gofer.p9.codec import Message
from runsc.launch.boot_gofer import sealed_memory
from sentry.fs.gofer.changes import HostChanges
from sentry.fs.gofer.filesystem import GoferFileSystem, Options
from sentry.fs.gofer.handles import HandleCache, Lingering
from sentry.fs.gofer.requests import Pending
from sentry.fs.gofer.session import Exchangeable, Session
from tests.world import Program
from tests.world import World as Kernel

AT_FDCWD = -100


class CountingSession(Session):
    """Remembers what was asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[Message] = []

    def _put_in_line(self, request: Message) -> Pending:
        self.asked.append(request)
        return super()._put_in_line(request)

    def exchange(self, kind: Exchangeable, fields: tuple[Any, ...]) -> Pending:
        before = len(self.asked)
        pending = super().exchange(kind, fields)
        if len(self.asked) == before:
            self.asked.append(kind.message(*fields))
        return pending

    def names(self) -> list[str]:
        """The types of the requests since the last question, with what the loop would send."""
        self._give_back()
        found = [type(request).__name__ for request in self.asked]
        self.asked.clear()
        return found


class NoTime:
    """Timers that never fire."""

    def now_ns(self) -> int:
        return 0

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> None: ...


class World:
    """A program, the session, and the tree as the host sees it."""

    def __init__(self, host: Path, task: Program, session: CountingSession, fs: GoferFileSystem):
        self.host = host
        self.task = task
        self.session = session
        self.fs = fs
        self.ok = task.ok
        self.call = task.call

    def close(self) -> None:
        """Ends kernel and Gofer, before the test does."""
        self.task.world.close()

    def open(self, path: bytes, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        return int(self.ok("openat", AT_FDCWD, path, flags, mode))

    def read(self, fd: int, count: int = 4096, offset: int | None = None) -> bytes:
        buffer = self.task.buffer(count)
        if offset is None:
            n = self.ok("read", fd, buffer, count)
        else:
            n = self.ok("pread64", fd, buffer, count, offset)
        return bytes(self.task.read(buffer, n))

    def write(self, fd: int, data: bytes) -> int:
        return int(self.ok("write", fd, self.task.place(data), len(data)))

    def contents(self, path: bytes) -> bytes:
        fd = self.open(path)
        try:
            return self.read(fd, 65536)
        finally:
            self.ok("close", fd)

    def stat(self, path: bytes, nofollow: bool = False) -> os.stat_result:
        buffer = self.task.buffer(144)
        self.ok("newfstatat", AT_FDCWD, path, buffer, 0x100 if nofollow else 0)
        return self._stat(buffer)

    def fstat(self, fd: int) -> os.stat_result:
        buffer = self.task.buffer(144)
        self.ok("fstat", fd, buffer)
        return self._stat(buffer)

    def _stat(self, buffer: int) -> os.stat_result:
        raw = self.task.read(buffer, 144)
        dev, ino, nlink, mode, uid, gid, _, _, size = struct.unpack_from("<QQQIIIIQq", raw)
        return os.stat_result((mode, ino, dev, nlink, uid, gid, size, 0, 0, 0))

    def listdir(self, path: bytes) -> list[bytes]:
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        names = []
        buffer = self.task.buffer(32768)
        while n := self.ok("getdents64", fd, buffer, 32768):
            raw, pos = self.task.read(buffer, n), 0
            while pos < n:
                size = struct.unpack_from("<H", raw, pos + 16)[0]
                names.append(bytes(raw[pos + 19 : pos + size]).split(b"\0")[0])
                pos += size
        self.ok("close", fd)
        return sorted(set(names) - {b".", b".."})


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"contents")
    (root / "dir" / "inner").write_bytes(b"inner")
    (root / "link").symlink_to("dir/inner")
    os.chmod(root, 0o755)
    return root


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(host: Path) -> Iterator[MakeWorld]:
    """Makes a kernel with a Gofer; there is one at a time."""
    with ExitStack() as last:

        def make(
            exclusive: bool = True, descriptors: int = 100, readonly: bool = False,
            journal: int = 0,
        ) -> World:  # fmt: skip
            """`journal`: bytes of one."""
            last.close()
            made: list[Any] = []

            def root(kernel: Kernel) -> GoferFileSystem:
                fd = os.open(host, os.O_PATH)
                cache = CacheMode.EXCLUSIVE if exclusive else CacheMode.SHARED
                ring = sealed_memory(journal) if journal else -1
                sock = kernel.serve([Attachment(b"0", fd, readonly, cache)], ring)
                os.close(fd)
                if journal:
                    os.close(ring)
                session = CountingSession(sock, kernel.loop)
                kernel.stack.callback(session.close)  # it would read the next one's replies
                session.negotiate()
                handles = HandleCache(descriptors)
                timers = kernel.loop if journal else None
                options = Options(exclusive, readonly, handles=handles, writes_behind=timers)
                fs = GoferFileSystem(kernel.vfs.new_dev(), session, b"0", options)
                if not exclusive:  # wherever the tree of the test lies
                    fs.changes = HostChanges.of(session)
                    assert fs.changes is not None
                    fs.lingering = Lingering(handles, NoTime())
                made[:] = session, fs
                return fs

            kernel = last.enter_context(Kernel(root))
            session, fs = made
            if fs.hearing is not None:
                kernel.stack.callback(fs.hearing.close)
            if fs.journal is not None:
                kernel.stack.callback(fs.journal.close)
            if fs.changes is not None:
                kernel.stack.callback(fs.changes.close)
            task = kernel.program()
            task.task.fs.umask = 0
            session.names()
            return World(host, task, session, fs)

        yield make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """An exclusive root."""
    return make_world()


@pytest.fixture
def shared(make_world: MakeWorld) -> World:
    """A tree that the host changes, too."""
    return make_world(exclusive=False)


@pytest.fixture
def plain() -> Iterator[Kernel]:
    """A kernel without a Gofer."""
    with Kernel() as made:
        yield made


@pytest.fixture
def kernel(plain: Kernel) -> Any:
    """Its kernel."""
    return plain.kernel


@pytest.fixture
def task(plain: Kernel) -> Program:
    """A program over its empty tmpfs."""
    return plain.program()
