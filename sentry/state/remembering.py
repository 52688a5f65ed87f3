"""Address spaces from their records: mappings first, and their frames once all pages are there."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import Errno
from sentry.mm.layout import MMAP_MIN_ADDR, TASK_END, ProgramLayout
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import VVAR
from sentry.mm.ramfile import RamFile
from sentry.mm.vma import Vma, VmFlag
from sentry.platform.constants import PAGE_MASK, PAGE_SIZE
from sentry.state import records
from sentry.state.loader import at
from sentry.state.pages import LISTED, Damaged
from sentry.wait.again import again
from sentry.wait.steps import Pace, driven

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.platform.memory import AddressSpace
    from sentry.state.loader import Loader
    from sentry.vfs.file import FileDescription

KNOWN_FLAGS: Final = (1 << 22) - 1
"""Of a Vma: sentry.mm.vma.VmFlag."""


class Memories:
    """Those of a snapshot, by their places."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.managers: list[MemoryManager] = []
        self._users: set[int] = set()
        try:
            for record in loader.snapshot.memories:
                self.managers.append(self._empty(record))
        except BaseException:
            self.let_go()
            raise

    def _empty(self, record: records.Memory) -> MemoryManager:
        limits = at(self._loader.limits, record.limits, "set of limits")
        new_space = self._loader.kernel.platform.new_address_space
        mm = MemoryManager.empty(new_space, limits, record.randomize)
        amap = mm.map
        for address in (record.mmap_base, record.brk_start, record.brk_end):
            if address > TASK_END:
                raise Damaged(f"{address:#x} is no address of a program")
        if record.brk_start > record.brk_end or record.mmap_base & PAGE_MASK:
            raise Damaged("a heap, or mappings, where none can be")
        amap.mmap_base = record.mmap_base
        amap.forget_holes()
        amap.brk_start, amap.brk_end = record.brk_start, record.brk_end
        layout = record.layout
        amap.layout = ProgramLayout(
            **{name: getattr(layout, name) for name in layout.__struct_fields__}
        )
        amap.lock_future, amap.mdwe = record.lock_future & 7, record.mdwe & 3
        mm.barriers, mm.no_huge_pages = record.barriers, record.no_huge_pages
        return mm

    def let_go(self) -> None:
        """Of those that no task has."""
        for place, mm in enumerate(self.managers):
            if place not in self._users:
                mm.release()

    def use(self, place: int) -> MemoryManager:
        """For one task more."""
        mm = at(self.managers, place, "address space")
        if place in self._users:
            return mm.share()
        self._users.add(place)
        return mm

    async def map(self, files: list[FileDescription]) -> None:
        """All mappings, without frames of their own. Raises: Damaged."""
        if len(self._users) != len(self.managers):
            raise Damaged("an address space that no process has")
        pace = Pace()
        for mm, record in zip(self.managers, self._loader.snapshot.memories, strict=True):
            last = 0
            for mapping in record.mappings:
                if mapping.start < last:
                    raise Damaged("mappings that overlap")
                last = mapping.end
                try:
                    await self._map(mm, mapping, files)
                except Errno as error:
                    raise Damaged(f"a mapping at {mapping.start:#x}: {error}") from error
                await pace.rest()

    async def _map(
        self, mm: MemoryManager, record: records.Mapping, files: list[FileDescription]
    ) -> None:
        start, end, flags = record.start, record.end, record.flags
        within = MMAP_MIN_ADDR <= start < end <= TASK_END
        if not within or (start | end | record.offset) & PAGE_MASK:
            raise Damaged(f"a mapping from {start:#x} to {end:#x}")
        if flags & ~KNOWN_FLAGS:
            raise Damaged(f"a mapping with flags {flags:#x}")
        amap = mm.map
        amap.check_count(1)
        if flags & VmFlag.SPECIAL:
            self._map_special(mm, record)
            return
        if flags & VmFlag.SECRET:
            raise Damaged("memory of memfd_secret(2)")
        shared = bool(flags & VmFlag.SHARED)
        file: Any = None
        backing: Any = None
        if record.file is not None:
            file = at(files, record.file, "open file")
            stores = shared and file.writable and not getattr(file, "write_sealed", False)
            if not file.readable or (shared and record.prot & 2 and not file.writable):
                raise Damaged("a mapping that its file does not allow")
            if record.below is None:
                backing = await again(file.mmap_backing, stores)
            elif not stores:
                backing = await self._below(file, record.below)
            if backing is None:
                raise Damaged("a mapping of what cannot be mapped")
            if shared and not file.writable:
                flags &= ~VmFlag.MAYWRITE
        elif record.bytes is not None:
            ram = amap.space.ram
            backing = self._loader.ram_file(record.bytes, lambda: RamFile(ram))
            if not shared or not backing.transient:
                raise Damaged("shared memory that is none")
        elif shared:
            raise Damaged("shared memory without bytes")
        offset = record.offset if backing is not None else 0
        vma = Vma(start, end, record.prot, flags, backing, offset, file, record.name)
        vma.policy = record.policy
        if file is not None:
            file.incref()
        amap.vmas.add(vma)
        amap.account(vma, 1)
        amap.count_mapping(vma, 1)
        if record.runs and shared:
            raise Damaged("shared memory with pages of its own")
        if any(run.page + run.count > vma.pages for run in record.runs):
            raise Damaged("pages behind the end of a mapping")
        await driven(self._loader.pages.counting(record.runs))

    async def _below(self, file: Any, place: records.InTree) -> Any:
        """What a lower file shows that was copied up since. Raises: Damaged."""
        if not hasattr(file, "backing_below"):
            raise Damaged("a mapping of a lower file of what is no overlay")
        inode: Any = at(at(self._loader.inodes, place[0], "tree"), place[1], "file")
        layers = file.inode.stack.layers
        numbers = [at for at, layer in layers.items() if at and layer.root.fs is inode.fs]
        if not numbers or not inode.is_regular:
            raise Damaged("a mapping of what is no lower file")
        await again(self._loader.rights.check_read, inode)
        return await again(file.backing_below, numbers[0], inode)

    def _map_special(self, mm: MemoryManager, record: records.Mapping) -> None:
        """The clock page and the vDSO: the platform's."""
        vdso = self._loader.kernel.platform.vdso
        pages = (record.end - record.start) // PAGE_SIZE
        if record.runs or pages != 1 or vdso is None or record.file is not None:
            raise Damaged("a page of the kernel's own that is none")
        gpa = {b"[vvar]": vdso.gpa, b"[vdso]": vdso.gpa + PAGE_SIZE}.get(record.name)
        prot = 5 if record.name == b"[vdso]" else 1
        flags = VmFlag.SPECIAL | VmFlag.MAYEXEC if prot == 5 else VVAR
        if gpa is None:
            raise Damaged(f"a page of the kernel's own that is called {record.name!r}")
        amap = mm.map
        shared = record.flags & VmFlag.SHARED
        amap.insert(Vma(record.start, record.end, prot, flags | shared, name=record.name))
        if shared:
            amap.space.map_frames(record.start, gpa, 1, prot)

    async def fill(self) -> None:
        """Private memory has its frames. Preconditions: all pages are read."""
        pace = Pace()
        for mm, record in zip(self.managers, self._loader.snapshot.memories, strict=True):
            for mapping in record.mappings:
                for run in mapping.runs:
                    for page, frames, shared in self._pieces(run):
                        addr = mapping.start + page * PAGE_SIZE
                        _put(mm.space, addr, frames, mapping.prot, shared)
                        await pace.rest()

    def _pieces(self, run: records.Run) -> Iterator[tuple[int, array[int], bool]]:
        """Parts of a run whose frames are all shared, or all not."""
        if not run.frame:
            return
        pages = self._loader.pages
        for start in range(0, run.count, LISTED):
            first = run.frame + start
            last = min(first + LISTED, run.frame + run.count)
            frames, uses = pages.frames[first:last], pages.uses[first:last]
            begin = 0
            for end in range(1, len(frames) + 1):
                if end == len(frames) or (uses[end] > 1) != (uses[begin] > 1):
                    yield run.page + start + begin, frames[begin:end], uses[begin] > 1
                    begin = end


def _put(space: AddressSpace, addr: int, frames: array[int], prot: int, shared: bool) -> None:
    space.map_list(addr, frames, len(frames), prot, cow=shared)
