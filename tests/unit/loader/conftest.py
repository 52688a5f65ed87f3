"""Programs as open files, an empty address space over real page tables, and a task to load them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.auth.credentials import Credentials
from sentry.errors import EACCES, ENODATA, ENOENT
from sentry.kernel.services import Services
from sentry.mm.backing import HostBacking
from sentry.mm.manager import MemoryManager
from sentry.platform.memory import AddressSpace, Ram

MOUNTS = object()


class Program:
    """An open program: as much of a FileDescription as execve looks at."""

    readable = True
    writable = False

    has_max_offset = True

    def __init__(self, ram: Ram, path: Path, mode: int, mount_flags: int) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.backing = HostBacking(ram.windows, self.fd, False)
        self.xattrs: dict[bytes, bytes] = {}
        self.inode = SimpleNamespace(
            mode=mode, uid=0, gid=0, getxattr=self.getxattr, write_count=0,
            fs=SimpleNamespace(posix_acls=False),
        )  # fmt: skip
        fs = SimpleNamespace(owner=None)
        mount = SimpleNamespace(flags=mount_flags, fs=fs, namespace=MOUNTS)
        self.location = SimpleNamespace(mount=mount, path=path)
        self.refs = 1

    async def getxattr(self, name: bytes) -> bytes:
        if name not in self.xattrs:
            raise ENODATA
        return self.xattrs[name]

    def read_at(self, caller: Any, dest: Any, offset: int) -> int:
        put: int = dest.put(os.pread(self.fd, dest.count, offset))
        return put

    def mmap_backing(self, writable_shared: bool) -> HostBacking:
        return self.backing

    def incref(self) -> Program:
        self.refs += 1
        return self

    def decref(self) -> None:
        self.refs -= 1


class World:
    """A task whose files are the host's."""

    def __init__(self, ram: Ram, folder: Path) -> None:
        self.ram = ram
        self.folder = folder
        self.limits = {3: 8 << 20}
        self.programs: list[Program] = []
        self.spaces: list[MemoryManager] = []
        init = SimpleNamespace(has_execed=False)
        platform = SimpleNamespace(cpuid=(), vdso=None, xsave_size=832)
        pids = SimpleNamespace(tasks={})
        self.kernel = SimpleNamespace(services=Services(), init=init, platform=platform, pids=pids)
        container = SimpleNamespace(init=init)
        group = SimpleNamespace(personality=0, tasks=[], limits=self, container=container)
        self.task: Any = SimpleNamespace(
            kernel=self.kernel, group=group, creds=Credentials.user(1000, 1000),
            judge=None, no_new_privs=False, trace=None, mm=self, rlimit=self.rlimit, mounts=MOUNTS,
        )  # fmt: skip

    def rlimit(self, resource: int) -> int:
        return self.limits.get(resource, (1 << 64) - 1)

    def new_for_exec(self, task: Any, randomize: bool = True) -> MemoryManager:
        self.spaces.append(MemoryManager.empty(lambda: AddressSpace(self.ram), task, randomize))
        return self.spaces[-1]

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def open(self, path: Path | str, mode: int = 0o100755, flags: int = 0) -> Program:
        path = Path(path)
        if not path.exists():
            raise ENOENT(str(path))
        if not os.access(path, os.R_OK) or path.is_dir():
            raise EACCES(str(path))
        self.programs.append(Program(self.ram, path, mode, flags))
        return self.programs[-1]

    async def open_exec(self, task: Any, dirfd: int, path: bytes, flags: int) -> Program:
        if not path:
            raise ENOENT
        return self.open(path.decode())

    def close_exec(self, program: Program) -> None:
        program.decref()

    def run(self, coro: Any) -> Any:
        """Drive what never sleeps: at most it lets others run."""
        try:
            while coro.send(None).deadline_ns == 0:
                pass
        except StopIteration as end:
            return end.value
        raise AssertionError("it slept")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    ram = Ram.from_memfd(8 << 30)
    made = World(ram, tmp_path)
    monkeypatch.setattr("sentry.loader.load.open_exec", made.open_exec)
    monkeypatch.setattr("sentry.loader.load.close_exec", made.close_exec)
    yield made
    for space in made.spaces:
        if space.users:
            space.release()
    ram.close()


@pytest.fixture
def load(world: World) -> Callable[..., Any]:
    """load(path or Program, argv=…, envp=…) → Image."""
    from sentry.loader.load import load as loader  # noqa: PLC0415

    def start(
        program: Program | Path | str,
        argv: list[bytes] | None = None,
        envp: list[bytes] | None = None,
    ) -> Any:
        opened = program if isinstance(program, Program) else world.open(program)
        path = os.fsencode(opened.path)
        try:
            return world.run(loader(world.task, opened, path, argv or [path], envp or []))
        finally:
            opened.decref()
            opened.refs += 1

    return start
