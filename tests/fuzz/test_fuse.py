"""A server of a file system (fuse(4)) that answers, and says unasked, whatever it likes.

Programs use the file system meanwhile. Each call ends once the server is gone; what its nodes,
requests and pages cost is given back.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from hypothesis import strategies as st

from sentry.abi import fuse as f
from sentry.abi.signal import SIGKILL, SIGUSR1
from tests.fuzz.inside import Step
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.world import Program, World

ROOM: Final = 1 << 18
HEADER: Final = f.FUSE_IN_HEADER.size
CLIENTS: Final = 4
WORD: Final = (1 << 64) - 1
NAMES: Final = (b"a", b"b", b"d", b"d/a", b"d/b", b"d/d", b"", b".", b"d/..", b"x" * 255)
MODES: Final = (0o100644, 0o100755, 0o40755, 0o40000, 0o120777, 0o10600, 0o20666, 0o140600, 0, 8)
SIZES: Final = (0, 1, 10, 4095, 4096, 5000, 70_000, 1 << 20, 1 << 40, (1 << 63) - 1, 1 << 63, WORD)
NODES: Final = (0, 1, 2, 3, 4, 5, 6, WORD)
TIMES: Final = (0, 0, 0, 1, 100, WORD)
small = st.integers(0, 15)
numbers = st.sampled_from((0, 1, 2, 3, 7, 12, 100, 4096, 1 << 31, 1 << 32, 1 << 63, WORD)) | small

CALLS: Final[tuple[tuple[str, str], ...]] = (
    ("stat", "path buffer"), ("lstat", "path buffer"), ("open", "path flags mode"),
    ("open", "path flags mode"), ("open", "path flags mode"), ("close", "fd"),
    ("read", "fd buffer size"), ("pread64", "fd buffer size number"), ("write", "fd data size"),
    ("pwrite64", "fd data size number"), ("getdents64", "fd buffer size"), ("fstat", "fd buffer"),
    ("lseek", "fd number small"), ("ftruncate", "fd number"), ("truncate", "path number"),
    ("mkdir", "path mode"), ("rmdir", "path"), ("unlink", "path"), ("mknod", "path kind number"),
    ("symlink", "path path"), ("link", "path path"), ("rename", "path path"),
    ("renameat2", "cwd path cwd path small"), ("readlink", "path buffer size"),
    ("chmod", "path mode"), ("chown", "path small small"), ("access", "path small"),
    ("utimensat", "cwd path zero zero"), ("statfs", "path buffer"), ("fsync", "fd"),
    ("fallocate", "fd small number size"), ("flock", "fd small"), ("chdir", "path"),
    ("fcntl", "fd lock zeros"), ("ioctl", "fd number buffer"), ("getcwd", "buffer size"),
    ("getxattr", "path attribute buffer size"), ("setxattr", "path attribute data size small"),
    ("listxattr", "path buffer size"), ("removexattr", "path attribute"),
    ("copy_file_range", "fd zero fd zero size zero"), ("sendfile", "fd fd zero size"),
    ("mmap", "map size prot share fd zero"), ("munmap", "map size"), ("msync", "map size small"),
    ("write", "pipe map size"), ("read", "null map size"), ("execve", "path zero zero"),
    ("dup", "fd"), ("inotify_add_watch", "fd path number"),
)  # fmt: skip
EMPTY = {
    f.FUSE_UNLINK, f.FUSE_RMDIR, f.FUSE_RENAME, f.FUSE_RENAME2, f.FUSE_RELEASE, f.FUSE_FSYNC,
    f.FUSE_SETXATTR, f.FUSE_REMOVEXATTR, f.FUSE_FLUSH, f.FUSE_RELEASEDIR, f.FUSE_FSYNCDIR,
    f.FUSE_SETLK, f.FUSE_SETLKW, f.FUSE_ACCESS, f.FUSE_FALLOCATE,
}  # fmt: skip
ENTRIES = {f.FUSE_LOOKUP, f.FUSE_SYMLINK, f.FUSE_MKNOD, f.FUSE_MKDIR, f.FUSE_LINK}

answers = st.tuples(
    st.just("answer"),
    st.sampled_from(("right",) * 12 + ("error", "raw", "short", "long", "other", "none", "twice")),
    st.sampled_from(NODES), st.sampled_from(MODES), st.sampled_from(SIZES),
    st.sampled_from(TIMES), st.binary(max_size=200), numbers,
)  # fmt: skip
calls = st.tuples(
    st.just("call"), st.integers(0, CLIENTS - 1), st.integers(0, len(CALLS) - 1),
    st.sampled_from(NAMES), st.sampled_from(NAMES), numbers, small, st.sampled_from(SIZES[:8]),
)  # fmt: skip
notices = st.tuples(
    st.just("notice"), st.integers(0, 9), st.sampled_from(NODES), numbers, numbers,
    st.sampled_from(NAMES), st.integers(-2, 2),
)  # fmt: skip
others = st.tuples(st.sampled_from(("signal", "kill", "raw")), small, st.binary(max_size=80))
steps = st.lists(
    st.lists(calls | answers | answers | notices | others, min_size=1, max_size=20),
    min_size=1, max_size=20,
).map(lambda parts: [one for part in parts for one in part])  # fmt: skip


def attr(node: int, mode: int, size: int, time: int) -> tuple[int, ...]:
    return (
        node, size, size & 0xFFFF, time, time, time, 5, 5, WORD & 0xFFFFFFFF, mode, 1, 0, 0, 0,
        4096, 0,
    )  # fmt: skip


class Served:
    """A world with a mounted file system, its server and its users."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = world.program()
        server = self.server
        server.ok("mkdir", b"/mnt", 0o755)
        server.ok("mknod", b"/fuse", 0o20666, 10 << 8 | 229)
        self.device = server.ok("open", b"/fuse", 2)
        options = b"fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other" % self.device
        server.ok("mount", b"x", b"/mnt", b"fuse", 0, options)
        self.message = b""
        self.buffer = server.buffer(ROOM)
        self.read()
        flags = (
            f.FUSE_POSIX_LOCKS | f.FUSE_FLOCK_LOCKS | f.FUSE_DO_READDIRPLUS | f.FUSE_AUTO_INVAL_DATA
        )
        init = f.FUSE_INIT_OUT.pack(7, 41, 0, flags, 12, 9, 1 << 17, 1, 0, 0, 0, 0, b"")
        self.say(0, init)
        self.users: list[Program] = []
        for _ in range(CLIENTS):
            user = world.program()
            ends = user.place(bytes(8))
            user.ok("pipe2", ends, 0o4000)
            user.ok("mknod", b"/zero", 0o20666, 1 << 8 | 5) if not self.users else None
            user.ok("open", b"/zero", 0)
            self.users.append(user)

    def read(self) -> bool:
        """Take the next request, if there is one."""
        poll = self.server.place(struct.pack("<ihh", self.device, 1, 0))
        if self.server.call("poll", poll, 1, 0) != 1:
            return False
        got = self.server.call("read", self.device, self.buffer, ROOM)
        if got > 0:
            self.message = self.server.read(self.buffer, got)
        return got > 0

    def say(self, error: int, body: bytes, unique: int | None = None, tail: int = 0) -> None:
        header = f.FUSE_IN_HEADER.unpack(self.message)
        number = header.unique if unique is None else unique
        size = f.FUSE_OUT_HEADER.size + len(body) + tail
        data = f.FUSE_OUT_HEADER.pack(size & 0xFFFFFFFF, error, number) + body
        with bounded(("answer", header.opcode, error, body[:300])):
            self.server.call("write", self.device, self.server.place(data), len(data))
        self.world.settle()

    # --- what the steps do

    def answer(
        self, how: str, node: int, mode: int, size: int, time: int, data: bytes, number: int
    ) -> None:
        if not self.read():
            return
        header = f.FUSE_IN_HEADER.unpack(self.message)
        body = self.message[HEADER:]
        if how == "none" or header.opcode in (f.FUSE_FORGET, f.FUSE_BATCH_FORGET):
            return
        right = self.right(header.opcode, header.nodeid, body, (node, mode, size, time, data))
        if how == "error":
            self.say(-(number & 0xFFF), b"")
        elif how == "raw":
            self.say(0, data)
        elif how == "short":
            self.say(0, right[: len(right) - 1 - number % 8])
        elif how == "long":
            self.say(0, right + data)
        elif how == "other":
            self.say(0, right, number)
        else:
            self.say(0, right)
            if how == "twice":
                self.say(0, right)

    def right(
        self, opcode: int, node: int, body: bytes, values: tuple[int, int, int, int, bytes]
    ) -> bytes:
        """An answer of the right form, whatever is in it."""
        new, mode, size, time, data = values
        entry = f.FUSE_ENTRY_OUT.pack(new, 0, time, time, 0, 0, *attr(new, mode, size, time))
        if opcode in EMPTY:
            return b""
        if opcode in ENTRIES:
            return entry
        if opcode == f.FUSE_CREATE:
            return entry + f.FUSE_OPEN_OUT.pack(new, size & 7, 0)
        if opcode in (f.FUSE_GETATTR, f.FUSE_SETATTR):
            kind = 0o40755 if node == 1 else mode
            return f.FUSE_ATTR_OUT.pack(time, 0, 0, *attr(node, kind, size, time))
        if opcode in (f.FUSE_OPEN, f.FUSE_OPENDIR):
            return f.FUSE_OPEN_OUT.pack(new, size & 7, 0)
        if opcode == f.FUSE_READ:
            wanted = f.FUSE_READ_IN.unpack(body).size
            return (data * (wanted // max(len(data), 1) + 1))[: min(wanted, size)]
        if opcode == f.FUSE_WRITE:
            return f.FUSE_WRITE_OUT.pack(min(f.FUSE_WRITE_IN.unpack(body).size, size), 0)
        if opcode in (f.FUSE_READDIR, f.FUSE_READDIRPLUS):
            before = entry if opcode == f.FUSE_READDIRPLUS else b""
            name = (data or b"n")[:20]
            record = before + struct.pack("<QQII", new, size, len(name), mode >> 12) + name
            return (record + bytes(-len(record) % 8)) * (time % 4)
        made: dict[int, bytes] = {
            f.FUSE_STATFS: f.FUSE_STATFS_OUT.pack(size, size, size, new, new, mode, 255, 0, 0, b""),
            f.FUSE_LSEEK: f.FUSE_LSEEK_OUT.pack(size),
            f.FUSE_GETLK: f.FUSE_LK_OUT.pack(new, size, time & 3, 0),
            f.FUSE_IOCTL: f.FUSE_IOCTL_OUT.pack(new - (1 << 64) >> 63, mode & 7, 0, 0) + data[:8],
            f.FUSE_COPY_FILE_RANGE: f.FUSE_WRITE_OUT.pack(size & 0xFFFFFFFF, 0),
        }
        return made.get(opcode, data)

    def call(self, who: int, which: int, *values: Any) -> None:
        user = self.users[who]
        if user.task.dead or user.context.result is None:
            return
        one, two, number, few, size = values
        path, other = b"/mnt/" + one, b"/mnt/" + two
        buffer = user.buffer(min(size, 70_000) + 4096)
        paths = iter((path, other))
        given: dict[str, Any] = {
            "buffer": buffer, "data": buffer, "size": min(size, 70_000), "number": number,
            "small": few, "flags": (0, 1, 2, 0o102, 0o100, 0o1002, 0o2001, 0o200000)[few & 7],
            "mode": 0o644, "kind": MODES[few % len(MODES)], "fd": 4 + few % 5, "cwd": -100 & WORD,
            "zero": 0, "lock": (5, 6, 7, 36, 37, 38)[few % 6], "zeros": user.place(bytes(32)),
            "attribute": b"user.x", "map": 1 << 33, "prot": few & 3, "null": 4, "pipe": 3,
            "share": 0x10 | (1 if few & 4 else 2),
        }  # fmt: skip
        name, kinds = CALLS[which]
        arguments = [next(paths) if kind == "path" else given[kind] for kind in kinds.split()]
        with bounded((name, arguments)):
            user.begin(name, *arguments)
        self.world.settle()

    def notice(
        self, code: int, node: int, one: int, two: int, name: bytes, off: int
    ) -> None:
        shapes: dict[int, bytes] = {
            f.FUSE_NOTIFY_POLL: struct.pack("<Q", node),
            f.FUSE_NOTIFY_INVAL_INODE: struct.pack("<QQQ", node, one, two),
            f.FUSE_NOTIFY_INVAL_ENTRY: struct.pack("<QII", node, len(name), 0) + name + b"\0",
            f.FUSE_NOTIFY_DELETE: struct.pack("<QQII", node, one, len(name), 0) + name + b"\0",
            f.FUSE_NOTIFY_STORE: struct.pack("<QQII", node, one, len(name), 0) + name,
            f.FUSE_NOTIFY_RETRIEVE: struct.pack("<QQQII", one, node, two, 9, 0),
        }  # fmt: skip
        body = shapes.get(code, name)
        body = body[:off] if off < 0 else body + bytes(off)
        self.say(code, body, 0)

    def take(self, step: Step) -> None:
        kind, *values = step
        if kind == "call":
            self.call(*values)
        elif kind == "answer":
            self.answer(*values)
        elif kind == "notice":
            self.notice(*values)
        elif kind == "raw":
            self.say(0, values[1], tail=values[0])
        else:
            user = self.users[values[0] % CLIENTS]
            if not user.task.dead and user.context.result is None:
                signal = SIGKILL if kind == "kill" else SIGUSR1
                self.server.call("kill", user.task.group.tgid, signal)
                self.world.settle()


def check(steps: list[Step]) -> None:
    world = World()
    try:
        budget = world.vfs.budget
        served = Served(world)
        inodes = budget.inodes
        for step in steps:
            served.take(step)
        connections = [fs.connection for fs in world.vfs.fuse]
        served.server.task.group.exit(SIGKILL)
        world.settle()
        assert world.vfs.fuse.bytes == 0
        assert not any(connection.waiting for connection in connections)
        for user in served.users:
            if not user.task.dead:
                user.task.group.exit(SIGKILL)
        world.settle()
        assert all(user.task.dead for user in served.users), "a call has not ended"
        world.init.call("umount2", b"/mnt", 2)
        world.vfs.dentries.forget()
        assert budget.inodes <= inodes, "nodes are left"
    except BaseException:
        world.abandon()
        raise
    world.close()


@for_a_while()
def test_any_server_costs_only_those_who_use_it(seconds: float) -> None:
    explore(seconds, check, 30, steps=steps)


@kept("fuse")
def test_what_was_found_once_costs_nobody_else(case: list[Step]) -> None:
    check(case)
