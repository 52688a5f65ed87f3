"""What stands in a core file: an ELF file of notes about threads and of the process's memory.

Layout: fs/binfmt_elf.c (elf_core_dump), <linux/elfcore.h>; core(5) for what of the memory is in it.
The thread that took the signal comes first, then the notes about the process, as gdb expects it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.elf import (
    EHDR,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    ET_CORE,
    EV_CURRENT,
    NT_AUXV,
    NT_FILE,
    NT_PRFPREG,
    NT_PRPSINFO,
    NT_PRSTATUS,
    NT_SIGINFO,
    NT_X86_XSTATE,
    PF_R,
    PF_W,
    PF_X,
    PHDR,
    PT_LOAD,
    PT_NOTE,
)
from sentry.errors import EFAULT
from sentry.kernel.ptrace import registers
from sentry.mm.backing import HostBacking
from sentry.mm.forced import peek
from sentry.mm.layout import TASK_END
from sentry.mm.vma import VmFlag
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.paths import shown_path

if TYPE_CHECKING:
    from sentry.kernel.signals import SigInfo
    from sentry.kernel.task import Task
    from sentry.mm.vma import Vma
    from sentry.wait.steps import Steps

MAX_HEADERS: Final = 0xFFFE
"""Program headers that e_phnum can count; mappings beyond are left out."""
MAX_NAMES: Final = 4 << 20
ANON_PRIVATE, ANON_SHARED, FILE_PRIVATE, FILE_SHARED, ELF_HEADERS = 1, 2, 4, 8, 16
ARGUMENTS: Final = 80

_note = struct.Struct("<III")
_status = struct.Struct("<iiih2xQQiiii8q")
_psinfo = struct.Struct("<BcBbxxxxQIIiiii16s80s")
_file = struct.Struct("<QQQ")


def note(name: bytes, kind: int, data: bytes) -> bytes:
    """A note; name and contents are padded to words."""
    name += b"\0"
    head = _note.pack(len(name), len(data), kind)
    return head + name + bytes(-len(name) & 3) + data + bytes(-len(data) & 3)


def _timeval(ns: int) -> tuple[int, int]:
    return ns // 10**9, ns % 10**9 // 1000


def thread_status(task: Task, info: SigInfo) -> bytes:
    """NT_PRSTATUS: struct elf_prstatus."""
    group = task.group
    reaped = group.reaped_usage
    parent = group.parent.tgid if group.parent is not None else 0
    head = _status.pack(
        info.signo, info.code, info.errno, info.signo, task.pending.mask, task.blocked,
        task.tid, parent, group.process_group.pgid, group.session.sid,
        *_timeval(task.ctx.cpu_time_ns()), *_timeval(task.sys_time_ns),
        *_timeval(reaped.user_ns), *_timeval(reaped.sys_ns),
    )  # fmt: skip
    return note(b"CORE", NT_PRSTATUS, head + registers.get_regs(task) + struct.pack("<i4x", 1))


def thread_fpu(task: Task) -> bytes:
    """NT_PRFPREG and NT_X86_XSTATE."""
    state = registers.xstate(task)
    return note(b"CORE", NT_PRFPREG, state[: registers.FPREGS_SIZE]) + note(
        b"LINUX", NT_X86_XSTATE, state
    )


def process_notes(task: Task, info: SigInfo) -> Steps[bytes]:
    """NT_PRPSINFO, NT_SIGINFO, NT_AUXV, NT_FILE."""
    group, creds, mm = task.group, task.creds, task.mm
    layout = mm.map.layout
    size = max(0, min(ARGUMENTS - 1, layout.arg_end - layout.arg_start))
    try:
        words = peek(mm, layout.arg_start, size) if size else b""
    except EFAULT:
        words = b""
    parent = group.parent.tgid if group.parent is not None else 0
    info_note = _psinfo.pack(
        0, b"R", 0, 0, 0, creds.uid & 0xFFFFFFFF, creds.gid & 0xFFFFFFFF, group.tgid, parent,
        group.process_group.pgid, group.session.sid, task.comm, words.replace(b"\0", b" "),
    )  # fmt: skip
    return (
        note(b"CORE", NT_PRPSINFO, info_note)
        + note(b"CORE", NT_SIGINFO, info.pack())
        + note(b"CORE", NT_AUXV, layout.auxv)
        + note(b"CORE", NT_FILE, (yield from _files(task)))
    )


def _files(task: Task) -> Steps[bytes]:
    """Which files are mapped where."""
    ranges, names, root, count, size = [], [], task.fs.root, 0, 0
    for vma, _, _ in task.mm.map.parts(0, TASK_END):
        yield
        if vma.file is None:
            continue
        location: Any = getattr(vma.file, "location", None)
        if location is None:
            continue
        name = shown_path(location, root) + b"\0"
        size += len(name) + _file.size
        if size > MAX_NAMES:
            break
        ranges.append(_file.pack(vma.start, vma.end, vma.offset // PAGE_SIZE))
        names.append(name)
        count += 1
    return struct.pack("<QQ", count, PAGE_SIZE) + b"".join(ranges) + b"".join(names)


def dumped_size(task: Task, vma: Vma, chosen: int) -> int:
    """How much of a mapping is in the file: vma_dump_size(), by coredump_filter."""
    whole = vma.end - vma.start
    if vma.flags & VmFlag.SPECIAL:
        return whole
    if vma.flags & (VmFlag.DONTDUMP | VmFlag.SECRET):
        return 0
    if vma.file is None:
        return whole if chosen & (ANON_SHARED if vma.shared else ANON_PRIVATE) else 0
    if vma.shared:
        return whole if chosen & FILE_SHARED else 0
    if chosen & FILE_PRIVATE or (chosen & ANON_PRIVATE and has_copies(task, vma)):
        return whole
    if chosen & ELF_HEADERS and not vma.offset and vma.prot & 1:
        try:
            return PAGE_SIZE if peek(task.mm, vma.start, 4) == b"\x7fELF" else 0
        except EFAULT:
            return 0
    return 0


def has_copies(task: Task, vma: Vma) -> bool:
    """A private mapping of a file has pages of its own: relocations, data (vma->anon_vma)."""
    here = task.mm.space.count(vma.start, vma.pages)
    return bool(here.ram if isinstance(vma.backing, HostBacking) else here.alone)


def headers(
    task: Task, notes: bytes, chosen: int
) -> Steps[tuple[bytes, list[tuple[int, int, int]]]]:
    """ELF header, program headers and notes; then (offset, address, length) of what follows."""
    vmas: list[Vma] = []
    for vma, _, _ in task.mm.map.parts(0, TASK_END):
        if len(vmas) == MAX_HEADERS:
            break
        vmas.append(vma)
        yield
    at = EHDR.size + PHDR.size * (len(vmas) + 1)
    table = [PHDR.pack(PT_NOTE, 0, at, 0, 0, len(notes), 0, 4)]
    offset = at + len(notes) + PAGE_SIZE - 1 & -PAGE_SIZE
    pieces = []
    for vma in vmas:
        size = dumped_size(task, vma, chosen)
        prot = vma.prot
        flags = (prot & 1 and PF_R) | (prot & 2 and PF_W) | (prot & 4 and PF_X)
        table.append(
            PHDR.pack(PT_LOAD, flags, offset, vma.start, 0, size, vma.end - vma.start, PAGE_SIZE)
        )
        if size:
            pieces.append((offset, vma.start, size))
        offset += size
        yield
    ident = b"\x7fELF" + bytes((ELFCLASS64, ELFDATA2LSB, EV_CURRENT))
    head = EHDR.pack(
        ident.ljust(16, b"\0"), ET_CORE, EM_X86_64, EV_CURRENT, 0, EHDR.size, 0, 0, EHDR.size,
        PHDR.size, len(table), 0, 0, 0,
    )  # fmt: skip
    return head + b"".join(table) + notes, pieces


def runs(present: bytes) -> Iterator[tuple[int, int]]:
    """(first page, count) of what is in memory."""
    page = 0
    while page < len(present):
        if not present[page] & 1:
            page += 1
            continue
        first = page
        while page < len(present) and present[page] & 1:
            page += 1
        yield first, page - first
