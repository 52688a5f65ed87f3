"""`load`: from an open file to an `Image`. fs/exec.c, fs/binfmt_elf.c."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.elf import EHDR, Ehdr
from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_STACK,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from sentry.abi.personality import ADDR_NO_RANDOMIZE
from sentry.abi.resource import RLIMIT_STACK
from sentry.abi.signal import SIGSEGV
from sentry.errors import EACCES, EIO, ELIBBAD, ELOOP, ENOENT, ENOEXEC, Errno
from sentry.kernel.machine import machine_of
from sentry.loader import auxv, elf, privileges, script, stack
from sentry.loader.image import COMM_LEN, Image
from sentry.loader.segments import PIE_BASE, map_program, place, with_faults
from sentry.mm.heap import set_brk_start
from sentry.mm.layout import ProgramLayout
from sentry.mm.mapping import map_vdso, mmap
from sentry.platform.constants import PAGE_SIZE, TASK_SIZE
from sentry.platform.memory import Exhausted
from sentry.vfs.exec import Running, close_exec, open_exec, read_exec
from sentry.vfs.pieces import PIECE
from sentry.wait.again import again
from sentry.wait.fiber import Killed, Mode
from sentry.wait.steps import Pace, driven

if TYPE_CHECKING:
    from sentry.kernel.machine import Machine
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager

STACK_TOP: Final = TASK_SIZE - PAGE_SIZE
STACK_RANDOM: Final = 1 << 34
PIE_RANDOM: Final = 1 << 40
BRK_RANDOM: Final = 1 << 30
STACK_EXPAND: Final = 131072
"""Stack mapped below what is used: setup_arg_pages()."""


class _Chain(Struct):
    """What execve found when it looked through the file and its interpreters: nothing is mapped."""

    file: Any
    strings: stack.Strings
    header: Ehdr
    program: elf.Program | Errno
    """Its headers; or what is wrong with them, which counts after the point of no return."""
    loader: Any = None
    """The file of PT_INTERP."""
    loader_program: elf.Program | Errno | None = None


async def load(
    task: Task,
    file: Any,
    path: bytes,
    argv: list[bytes],
    envp: list[bytes],
    *,
    unreachable: bool = False,
) -> Image:
    """The program in `file`, opened by open_exec and closed by the caller, ready to start.

    `path` is what the program sees as its file name; `unreachable`: it goes over a descriptor that
    is closed now, so no interpreter could open a script (BINPRM_FLAGS_PATH_INACCESSIBLE).
    Raises, with nothing changed: E2BIG, ENOEXEC, ELIBBAD, ELOOP, EIO, EPERM, ENOMEM, and what
    opening an interpreter raises. Where Linux is past its point of no return the process dies of
    SIGSEGV (Killed), unless it is the sandbox's first.
    """
    strings = stack.Strings(path, argv, envp)
    await driven(stack.check_size.steps(strings, task.rlimit(RLIMIT_STACK)))
    opened: list[Any] = []
    try:
        chain = await _examine(task, file, strings, opened, unreachable)
        creds, secure = await privileges.new_credentials(task, chain.file)
        mapped = [chain.file] if chain.loader is None else [chain.file, chain.loader]
        for each in mapped:
            each.mmap_backing(False)  # while there is a way back: ENOMEM beyond the ceiling
        readable, memory_ns = await again(privileges.would_dump, task.creds, mapped)
        dumpable = readable and privileges.unchanged(task.creds, creds)
        try:
            mm, entry, stack_pointer = await _built(task, chain, (creds, secure))
        except Errno as error:
            _doom(task, error)
            raise
        comm = path.rsplit(b"/", 1)[-1][:COMM_LEN]
        return Image(
            mm, entry, stack_pointer, creds, secure, dumpable, memory_ns, comm,
            chain.file.location, list(chain.strings.argv),
        )  # fmt: skip
    finally:
        for other in opened:
            close_exec(other)


def _doom(task: Task, error: Errno) -> None:
    """Linux has given up the old program by now: force_fatal_sig(SIGSEGV) in bprm_execve().

    Not where the program is the first of a container or of `exec`: its caller hears of it.
    """
    group = task.group
    init = group.container.init
    if init is None or not init.has_execed or not group.tasks:
        return
    group.exit(SIGSEGV)
    raise Killed from error


async def _examine(
    task: Task, file: Any, strings: stack.Strings, opened: list[Any], unreachable: bool
) -> _Chain:
    """Follow scripts to a program, and the program to its loader."""
    depth = 0
    while True:
        head = await read_exec(task, file, 0, script.HEAD_SIZE)
        if not script.is_script(head):
            break
        line = script.parse_shebang(head)
        if unreachable:
            raise ENOENT("the interpreter could not open the script")
        extra = [line.interpreter] + ([line.argument] if line.argument is not None else [])
        name = strings.file_name if depth == 0 else strings.argv[0]
        strings = _with_interpreter(strings, extra, name, depth)
        await driven(stack.check_size.steps(strings, task.rlimit(RLIMIT_STACK)))
        if depth == script.MAX_DEPTH:
            raise ELOOP("interpreters of interpreters")
        depth += 1
        if not line.interpreter:
            raise EACCES("the interpreter is the working directory")
        file = await again(open_exec, task, AT_FDCWD, line.interpreter, 0)
        opened.append(file)
        if task.judge is not None:
            await task.judge.runs(file, [])
    header = elf.parse_header(head)
    table = await _table(task, file, header)
    found = elf.find_interpreter(header, table)
    chain = _Chain(file, strings, header, _try_program(header, table))
    if found is not None:
        await _examine_loader(task, chain, found, opened)
    return chain


def _with_interpreter(
    strings: stack.Strings, extra: list[bytes], script_path: bytes, depth: int
) -> stack.Strings:
    """argv[0] gives way to the interpreter, its argument and the path of the script."""
    rest = [script_path, *strings.argv[1:]] if depth == 0 else strings.argv
    argv = [*extra, *rest]
    return stack.Strings(strings.file_name, argv, strings.envp)


async def _table(task: Task, file: Any, header: Ehdr) -> bytes:
    offset, size = elf.headers_extent(header)
    return await read_exec(task, file, offset, size)


def _try_program(header: Ehdr, table: bytes) -> elf.Program | Errno:
    try:
        return elf.parse_program(header, table)
    except ENOEXEC:
        raise
    except Errno as error:
        return error


async def _examine_loader(
    task: Task, chain: _Chain, where: tuple[int, int], opened: list[Any]
) -> None:
    """Open PT_INTERP and read its headers. Raises: EIO, ENOEXEC, ELIBBAD, ENOENT, EACCES."""
    name = await read_exec(task, chain.file, *where)
    if len(name) != where[1]:
        raise EIO("PT_INTERP lies beyond the end of the file")
    if name[-1] != 0:
        raise ENOEXEC("PT_INTERP has no end")
    name = name.split(b"\0", 1)[0]
    if not name:
        raise EACCES("PT_INTERP is the working directory")
    chain.loader = await again(open_exec, task, AT_FDCWD, name, 0)
    opened.append(chain.loader)
    if task.judge is not None:
        await task.judge.runs(chain.loader, [])
    head = await read_exec(task, chain.loader, 0, EHDR.size)
    if len(head) != EHDR.size:
        raise EIO("the loader is truncated")
    try:
        header = elf.parse_header(head)
        table = await _table(task, chain.loader, header)
        chain.loader_program = _try_program(header, table)
    except ENOEXEC as error:
        raise ELIBBAD(str(error)) from error


async def _built(
    task: Task, chain: _Chain, rights: tuple[Any, bool]
) -> tuple[MemoryManager, int, int]:
    """A new address space with everything in it; entry and stack pointer. Where RAM is full it is
    made once more when there is room: who is at fault dies, not who begins. Raises: Errno."""
    randomize = not task.group.personality & ADDR_NO_RANDOMIZE
    while True:
        mm = None
        try:
            mm = task.mm.new_for_exec(task.group.limits, randomize)
            return mm, *await _build(task, mm, chain, rights)
        except BaseException as error:
            if mm is not None:
                mm.release()
            if not isinstance(error, Exhausted):
                raise
        await task.kernel.make_frames()


async def _build(
    task: Task, mm: MemoryManager, chain: _Chain, rights: tuple[Any, bool]
) -> tuple[int, int]:
    """Map everything into `mm`; entry and stack pointer."""
    if isinstance(chain.program, Errno):
        raise chain.program
    program = chain.program
    randomize = not task.group.personality & ADDR_NO_RANDOMIZE
    top = STACK_TOP - (_random(STACK_RANDOM, 4096) if randomize else 0)
    layout = ProgramLayout()
    base = None
    if chain.loader is not None:
        base = PIE_BASE + (_random(PIE_RANDOM, 4096) if randomize else 0)
    _reserve_stack(mm, top, chain, program)
    loaded = await map_program(mm, chain.file, program, place(mm, program, base))
    loader_base, entry = 0, loaded.entry
    if chain.loader_program is not None:
        if isinstance(chain.loader_program, Errno):
            raise chain.loader_program
        bias = place(mm, chain.loader_program, None)
        linker = await map_program(mm, chain.loader, chain.loader_program, bias)
        loader_base, entry = linker.bias, linker.entry
    vdso = _map_vdso(task, mm)
    # brk starts after the program; after a static-pie one it would soon meet the mappings
    alone = program.position_independent and chain.loader is None
    layout.start_brk = elf.page_align(loaded.end) if not alone else PIE_BASE
    if randomize:
        layout.start_brk += _random(BRK_RANDOM, 4096)
    set_brk_start(mm.map, layout.start_brk)

    phdr = loaded.bias + program.phdr_addr if program.phdr_addr else 0
    start = auxv.Start(loaded.entry, phdr, program.phnum, loader_base, vdso)
    vector: list[tuple[int, int]] = []

    def pack(strings: tuple[int, int, int]) -> bytes:
        vector[:] = auxv.auxiliary_vector(_machine(task), start, *rights, strings)
        return auxv.pack(vector)

    gap = _random(stack.RANDOM_GAP) if randomize else 0
    built = await driven(stack.build.steps(top, chain.strings, os.urandom(16), gap, pack))
    pace = Pace()
    for at in range(0, len(built.data), PIECE):
        piece = built.data[at : at + PIECE]
        await with_faults(partial(mm.write, built.stack_pointer + at, piece))
        await pace.rest(Mode.UNINTERRUPTIBLE)
    layout.start_code, layout.end_code = loaded.start_code, loaded.end_code
    layout.start_data, layout.end_data = loaded.start_data, loaded.end_data
    layout.start_stack = built.stack_pointer
    layout.arg_start, layout.arg_end = built.arg_start, built.arg_end
    layout.env_start, layout.env_end = built.env_start, built.env_end
    layout.auxv = auxv.pack(vector)
    layout.program = Running(chain.file.inode)
    mm.map.layout = layout
    return entry, built.stack_pointer


def _random(limit: int, step: int = 1) -> int:
    """A multiple of `step` below `limit` that nobody can guess."""
    return int.from_bytes(os.urandom(8)) % (limit // step) * step


def _reserve_stack(mm: MemoryManager, top: int, chain: _Chain, program: elf.Program) -> None:
    """The stack: what is written now and 128 KiB more; it grows on faults."""
    strings = chain.strings
    tables = 8 * (len(strings.argv) + len(strings.envp)) + 1024 + stack.RANDOM_GAP
    size = elf.page_align(strings.size + tables + STACK_EXPAND)
    prot = PROT_READ | PROT_WRITE | (PROT_EXEC if program.executable_stack else 0)
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK | MAP_FIXED
    mmap(mm.map, top - size, size, prot, flags)


def _map_vdso(task: Task, mm: MemoryManager) -> int:
    """The vDSO, where the platform has one; its address, else 0."""
    vdso = task.kernel.platform.vdso
    if vdso is None:
        return 0
    return map_vdso(mm.map, vdso.gpa)


def _machine(task: Task) -> Machine:
    """What the auxiliary vector says of the CPU: worked out once."""
    services = task.kernel.services
    if services.machine is None:
        services.machine = machine_of(task.kernel.platform)
    return services.machine
