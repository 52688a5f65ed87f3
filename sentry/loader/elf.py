"""ELF headers of a program: bytes in, checked numbers out.

What fs/binfmt_elf.c accepts is accepted: x86-64, ET_EXEC or ET_DYN, at most 64 KiB of program
headers. Sections, notes and PT_GNU_PROPERTY are ignored. No input or output here, so that a fuzzer
can call it with anything.
"""

from __future__ import annotations

from msgspec import Struct

from sentry.abi.elf import (
    EHDR,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PHDR,
    PT_GNU_STACK,
    PT_INTERP,
    PT_LOAD,
    Ehdr,
)
from sentry.abi.limits import PATH_MAX
from sentry.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from sentry.errors import EINVAL, EIO, ENOEXEC
from sentry.platform.constants import PAGE_MASK, PAGE_SIZE, TASK_SIZE

MAX_HEADERS = 65536
"""Bytes of program headers: load_elf_phdrs()."""


def page_start(addr: int) -> int:
    """The page that `addr` lies in."""
    return addr & ~PAGE_MASK


def page_align(addr: int) -> int:
    """The first page boundary at or above `addr`."""
    return (addr + PAGE_MASK) & ~PAGE_MASK


class Segment(Struct, frozen=True):
    """A PT_LOAD entry. Ends below TASK_SIZE, and the file part is not longer than the whole."""

    vaddr: int
    memsz: int
    filesz: int
    offset: int
    align: int
    prot: int
    """PROT_*."""


class Program(Struct, frozen=True):
    """The program headers that matter."""

    position_independent: bool
    entry: int
    phnum: int
    phdr_addr: int
    """Where the program headers lie in memory (unbiased), 0 if no segment holds them."""
    segments: tuple[Segment, ...]
    interpreter: tuple[int, int] | None
    """File offset and size of PT_INTERP."""
    executable_stack: bool

    @property
    def start(self) -> int:
        """The page of the lowest address."""
        return page_start(min(s.vaddr for s in self.segments))

    @property
    def span(self) -> int:
        """Bytes from `start` to the end of the highest segment: total_mapping_size()."""
        return max(s.vaddr + s.memsz for s in self.segments) - self.start

    @property
    def alignment(self) -> int:
        """The largest power of two that a segment asks for, at least a page."""
        wanted = (s.align for s in self.segments if s.align & (s.align - 1) == 0)
        return max(PAGE_SIZE, *wanted, 0)


def parse_header(data: bytes) -> Ehdr:
    """The ELF header, if it is one of a program for this machine. Raises: ENOEXEC."""
    if len(data) < EHDR.size or data[:4] != b"\x7fELF":
        raise ENOEXEC("not an ELF file")
    header = EHDR.unpack(data)
    if header.e_type not in (ET_EXEC, ET_DYN):
        raise ENOEXEC(f"ELF type {header.e_type}")
    if header.e_machine != EM_X86_64:
        raise ENOEXEC(f"ELF machine {header.e_machine}")
    size = header.e_phnum * PHDR.size
    if header.e_phentsize != PHDR.size or not 0 < size <= MAX_HEADERS:
        raise ENOEXEC("program headers")
    if header.e_phoff + size >= 1 << 63:
        raise ENOEXEC("program headers out of reach")
    return header


def headers_extent(header: Ehdr) -> tuple[int, int]:
    """File offset and size of the program headers."""
    return header.e_phoff, header.e_phnum * PHDR.size


def find_interpreter(header: Ehdr, table: bytes) -> tuple[int, int] | None:
    """Offset and size of the first PT_INTERP. Raises: ENOEXEC, EINVAL, EIO."""
    if len(table) != header.e_phnum * PHDR.size:
        raise ENOEXEC("truncated program headers")
    for entry in PHDR.unpack_all(table):
        if entry.p_type == PT_INTERP:
            if not 2 <= entry.p_filesz <= PATH_MAX:
                raise ENOEXEC("size of PT_INTERP")
            if entry.p_offset >> 63:
                raise EINVAL("PT_INTERP before the file")
            if entry.p_offset >= 1 << 62:
                raise EIO("PT_INTERP beyond the file")
            return entry.p_offset, entry.p_filesz
    return None


def parse_program(header: Ehdr, table: bytes) -> Program:
    """The segments, checked. Raises: ENOEXEC, EINVAL."""
    interpreter = find_interpreter(header, table)
    segments: list[Segment] = []
    executable_stack, phdr_addr = False, 0  # without PT_GNU_STACK: exec-none on x86-64
    for entry in PHDR.unpack_all(table):
        if entry.p_type == PT_GNU_STACK:
            executable_stack = bool(entry.p_flags & PF_X)
        if entry.p_type != PT_LOAD or not entry.p_memsz | entry.p_filesz:
            continue
        if (
            entry.p_vaddr >= TASK_SIZE
            or entry.p_filesz > entry.p_memsz
            or entry.p_memsz > TASK_SIZE - entry.p_vaddr
            or entry.p_offset + entry.p_filesz >= 1 << 62
        ):
            raise EINVAL("segment out of reach")
        if entry.p_filesz and (entry.p_offset ^ entry.p_vaddr) & PAGE_MASK:
            raise EINVAL("segment is not congruent with the file's pages")
        if entry.p_offset <= header.e_phoff < entry.p_offset + entry.p_filesz:
            phdr_addr = header.e_phoff - entry.p_offset + entry.p_vaddr
        prot = (
            (PROT_READ if entry.p_flags & PF_R else 0)
            | (PROT_WRITE if entry.p_flags & PF_W else 0)
            | (PROT_EXEC if entry.p_flags & PF_X else 0)
        )
        segments.append(
            Segment(
                entry.p_vaddr, entry.p_memsz, entry.p_filesz, entry.p_offset, entry.p_align, prot
            )
        )
    if not segments:
        raise EINVAL("nothing to load")
    return Program(
        header.e_type == ET_DYN,
        header.e_entry,
        header.e_phnum,
        phdr_addr,
        tuple(segments),
        interpreter,
        executable_stack,
    )
