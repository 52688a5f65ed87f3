"""System V objects as records, and back: segments, semaphores with SEM_UNDO, queues. sysvipc(7)."""

from __future__ import annotations

from array import array
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sentry.abi.sysvipc import IPC_PRIVATE, SEMVMX
from sentry.auth.credentials import Credentials
from sentry.fs.memfd import internal_mount
from sentry.fs.tmpfs.file import TmpFile
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.sysv_ids import IPCMNI, IdTable, IpcObject
from sentry.kernel.sysv_msg import Message, Queue
from sentry.kernel.sysv_sem import SemaphoreSet
from sentry.kernel.sysv_shm import Segment, ShmFile
from sentry.kernel.sysv_undo import UndoList
from sentry.platform.constants import PAGE_SIZE
from sentry.state import growing, records
from sentry.state.loader import Loader
from sentry.state.pages import Damaged
from sentry.state.trees import node
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.kernel.ipc_namespace import IpcObjects
    from sentry.kernel.task import Task
    from sentry.state.saver import Saver

T = TypeVar("T", bound=IpcObject)
KEPT: Final = ("id", "key", "uid", "gid", "cuid", "cgid", "mode", "ctime")
KEPT_OF_SEGMENT: Final = ("size", "atime", "dtime", "cpid", "lpid", "locked_by")
KEPT_OF_QUEUE: Final = ("max_bytes", "stime", "rtime", "lspid", "lrpid")
NUMBERS: Final = ("cpid", "lpid", "lspid", "lrpid")
"""Those that are a process's."""


def save(saver: Saver, made: IpcObjects) -> records.Ipc:
    """All of a namespace."""
    segments = [
        records.IpcSegment(
            node=node(saver, each.inode), creator=_tid(saver, each.creator), **_kept(each),
            **_fields(saver, each, KEPT_OF_SEGMENT),
        )
        for each in made.segments.ids.objects.values()
    ]  # fmt: skip
    semaphores = [
        records.IpcSemaphores(
            values=list(each.values), pids=list(map(saver.number, each.pids)), otime=each.otime,
            **_kept(each),
        )
        for each in made.semaphores.ids.objects.values()
    ]  # fmt: skip
    queues = [
        records.IpcQueue(
            messages=[(one.kind, bytes(one.data)) for one in each.messages], **_kept(each),
            **_fields(saver, each, KEPT_OF_QUEUE),
        )
        for each in made.queues.ids.objects.values()
    ]  # fmt: skip
    tables = made.segments.ids, made.semaphores.ids, made.queues.ids
    numbers = [(table._cursor, table._last, table._sequence) for table in tables]
    return records.Ipc(segments, semaphores, queues, numbers)


def objects_of(made: IpcObjects) -> Iterator[IpcObject]:
    """All of a namespace."""
    tables: tuple[IdTable[Any], ...] = made.segments.ids, made.semaphores.ids, made.queues.ids
    return chain.from_iterable(table.objects.values() for table in tables)


def undo(saver: Saver, found: UndoList) -> records.Undo:
    """What a process gives back at its end. Raises: EOPNOTSUPP."""
    places = {saver.namespaces.ipc_of(each) for each in found.sets}
    if len(places) > 1:
        from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

        refused("SEM_UNDO of semaphores in several namespaces")
    return records.Undo(
        [(each.id, number, change) for each in found.sets
         for number, change in each.undos[found].items()],
        next(iter(places), None),
    )  # fmt: skip


def _tid(saver: Saver, task: Any) -> int | None:
    return None if task is None or task.dead else saver.known(task.tid)


def _fields(saver: Saver, found: IpcObject, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in names}
    return values | {name: saver.number(values[name]) for name in NUMBERS if name in values}


def _kept(found: IpcObject) -> dict[str, Any]:
    return {name: getattr(found, name) for name in KEPT}


def attached(saver: Saver, file: ShmFile, common: dict[str, Any]) -> records.OpenFile:
    """An attachment."""
    place = saver.namespaces.ipc_of(file.segment)
    return records.Attachment(id=file.segment.id, namespace=place, **common)


def load(loader: Loader, found: dict[int | None, Objects]) -> None:
    """Those of all namespaces, by their places; None: the first. Raises: Damaged, ENOSPC."""
    if loader.snapshot.ipc is not None:
        ipc = loader.container.ns.ipc
        if ipc.made is not None and any(objects_of(ipc.made)):
            raise Damaged("System V objects, where other containers have some")
        found[None] = Objects(loader, loader.snapshot.ipc, ipc.objects)
    spaces = loader.namespaces.ipcs()
    for place, record in enumerate(loader.snapshot.namespaces.ipc):
        if record.objects is not None:
            found[place] = Objects(loader, record.objects, spaces[place].objects)
    for each in found.values():
        each.load()


class Objects:
    """Those of a namespace, which has none yet."""

    def __init__(self, loader: Loader, record: records.Ipc, made: IpcObjects) -> None:
        self._loader = loader
        self._record = record
        self._made = made
        self._own: list[Any] = []
        """What has been put there. Programs of other containers of the namespace may take it away
        from then on, and make others of the same identifiers."""

    def load(self) -> None:
        """All of them. Raises: Damaged, ENOSPC."""
        record = self._record
        for each in record.segments:
            self._segment(each)
        for some in record.semaphores:
            self._semaphores(some)
        for queue in record.queues:
            self._queue(queue)
        tables = self._made.segments.ids, self._made.semaphores.ids, self._made.queues.ids
        for table, numbers in zip(tables, record.numbers, strict=False):
            table._cursor, table._last, table._sequence = numbers  # type: ignore[attr-defined]

    def _kept_of(self, record: records.IpcObject, name: str) -> Any:
        value = getattr(record, name)
        return self._loader.numbers.of(value) if name in NUMBERS else value

    async def remove(self) -> None:
        """None of them is there any more: the snapshot could not be loaded as a whole."""
        made = self._made
        for found in self._own:
            if found.removed:
                continue
            if isinstance(found, Segment):
                made.segments.remove(found)
            elif isinstance(found, SemaphoreSet):
                await driven(made.semaphores.remove(found))
            else:
                made.queues.remove(found)

    def _put(self, table: IdTable[Any], found: Any, record: records.IpcObject) -> None:
        for name in KEPT:
            setattr(found, name, getattr(record, name))
        index = record.id % IPCMNI
        taken = index in table.objects or (record.key != IPC_PRIVATE and record.key in table.by_key)
        if taken:
            raise Damaged(f"System V object {record.id} is there twice")
        self._own.append(found)
        found.namespace_owner = table.owner
        table.objects[index] = found
        if record.key != IPC_PRIVATE:
            table.by_key[record.key] = found

    def _maker(self, pid: int = 0) -> Any:
        return SimpleNamespace(creds=Credentials.root(), group=SimpleNamespace(tgid=pid))

    def _segment(self, record: records.IpcSegment) -> None:
        segments, loader = self._made.segments, self._loader
        fs = internal_mount(loader.kernel.vfs).fs
        assert isinstance(fs, TmpFs)
        inode = growing.made(loader, fs, record.node)
        if not isinstance(inode, TmpFile) or record.size < 1:
            raise Damaged("a System V segment that is none")
        growing.fill(loader, inode, record.node)
        growing.pass_number(fs, inode.ino)
        pages = (record.size + PAGE_SIZE - 1) // PAGE_SIZE
        if inode.size_of()[0] != pages * PAGE_SIZE:
            raise Damaged("a System V segment of another size")
        found = Segment(self._maker(), record.key, record.size, 0, inode)
        found.creator = None
        self._put(segments.ids, found, record)
        segments.total_pages += pages

    def _semaphores(self, record: records.IpcSemaphores) -> None:
        count = len(record.values)
        budget = self._loader.kernel.vfs.budget
        if not count or len(record.pids) != count or max(record.values) > SEMVMX:
            raise Damaged("System V semaphores that are none")
        budget.check_semaphores(count)
        found = SemaphoreSet(self._maker(), record.key, count, 0)
        found.values = array("H", record.values)
        found.pids = array("i", map(self._loader.numbers.of, record.pids))
        found.otime = record.otime
        self._put(self._made.semaphores.ids, found, record)
        budget.semaphores += count
        self._made.semaphores.used += count

    def _queue(self, record: records.IpcQueue) -> None:
        budget = self._loader.kernel.vfs.budget
        found = Queue(self._maker(), record.key, 0, record.max_bytes)
        for name in KEPT_OF_QUEUE:
            setattr(found, name, self._kept_of(record, name))
        self._put(self._made.queues.ids, found, record)
        for kind, data in record.messages:
            budget.check_messages(len(data))
            found.add(Message(kind, data))
            self._made.queues._count(found, 1, len(data))

    def attach(self, record: records.Attachment) -> ShmFile:
        """An open file of a segment, which mappings hold."""
        segments = self._made.segments
        segment = self._found(Segment, record.id)
        if segment is None:
            raise Damaged(f"there is no System V segment {record.id}")
        mount = internal_mount(self._loader.kernel.vfs)
        dentry = Dentry(None, b"/SYSV%08x" % (segment.key & 0xFFFFFFFF), segment.inode)
        dentry.unlinked = True
        return ShmFile(Location(mount, dentry), record.flags, segments, segment)

    def finish(self, tasks: dict[int, Task]) -> None:
        """What attaching has changed is as it was."""
        for record in self._record.segments:
            segment = self._found(Segment, record.id)
            if segment is not None:
                for name in KEPT_OF_SEGMENT:
                    setattr(segment, name, self._kept_of(record, name))
                if record.creator is not None:
                    segment.creator = tasks.get(self._loader.numbers.of(record.creator))

    def semaphores(self, identifier: int) -> SemaphoreSet | None:
        """A set."""
        return self._found(SemaphoreSet, identifier)

    def _found(self, kind: type[T], identifier: int) -> T | None:
        """One of its own, which nobody has taken away."""
        for each in self._own:
            if isinstance(each, kind) and each.id == identifier and not each.removed:
                return each
        return None


def made_undo(
    loader: Loader, ipc: dict[int | None, Objects], record: records.Undo
) -> UndoList:
    """A list, of which whoever has it becomes a user. Raises: Damaged, ENOMEM."""
    found = UndoList(loader.kernel.vfs.budget)
    found.users = 0
    objects = ipc.get(record.namespace)
    for identifier, number, change in record.adjustments:
        which = objects.semaphores(identifier) if objects is not None else None
        if which is None or number >= len(which.values):
            raise Damaged(f"there is no System V semaphore {number} of {identifier}")
        found.keep(which, {number: change})
    return found


