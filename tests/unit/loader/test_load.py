"""sentry.loader.load: real programs in a new address space, and files that are none."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentry.abi.auxv import (
    AT_BASE,
    AT_ENTRY,
    AT_EXECFN,
    AT_PHDR,
    AT_PHNUM,
    AT_RANDOM,
    AT_SECURE,
    AT_SYSINFO_EHDR,
    AT_UID,
)
from sentry.abi.elf import EHDR, PF_R, PF_W, PF_X, PHDR, PT_INTERP, PT_LOAD
from sentry.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE
from sentry.abi.mount import MS_NOSUID
from sentry.auth.credentials import ALL_CAPS
from sentry.errors import E2BIG, EINVAL, EIO, ELIBBAD, ELOOP, ENOENT, ENOEXEC, Errno
from sentry.loader.elf import MAX_HEADERS
from sentry.mm.mapping import mmap
from sentry.mm.report import name_of
from sentry.wait.fiber import Killed

Load = Callable[..., Any]
DYNAMIC = Path("/bin/true")
CODE = 0x400000


def program(*entries: bytes, body: bytes = b"", **changes: int) -> bytes:
    """An ELF file: header, program headers, then `body` at offset 0x1000."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = {
        "type": 2, "machine": 62, "version": 1, "entry": CODE + 0x1000, "phoff": 64, "shoff": 0,
        "flags": 0, "ehsize": 64, "phentsize": 56, "phnum": len(entries), "shentsize": 0,
        "shnum": 0, "shstrndx": 0,
    } | changes  # fmt: skip
    data = EHDR.pack(ident, *header.values()) + b"".join(entries)
    return data.ljust(0x1000, b"\0") + body


def segment(vaddr: int, offset: int, filesz: int, memsz: int, flags: int = PF_R | PF_X) -> bytes:
    return PHDR.pack(PT_LOAD, flags, offset, vaddr, vaddr, filesz, memsz, 0x1000)


STATIC = program(
    segment(CODE, 0, 0x1100, 0x1100),
    segment(CODE + 0x2100, 0x1100, 0x80, 0x3000, PF_R | PF_W),
    body=b"\xf4" * 0x100 + b"D" * 0x80 + b"rest of the page",
)


def vector(image: Any) -> dict[int, int]:
    words = struct.iter_unpack("<QQ", image.mm.map.layout.auxv)
    return dict(words)


def arguments(image: Any) -> list[bytes]:
    layout = image.mm.map.layout
    data: bytes = image.mm.read(layout.arg_start, layout.arg_end - layout.arg_start)
    return data.split(b"\0")[:-1]


def test_static_program_is_mapped_and_its_bss_is_zero(world: Any, load: Load) -> None:
    image = load(world.write("static", STATIC))
    mm = image.mm
    assert image.entry == CODE + 0x1000
    assert mm.read(image.entry, 4) == b"\xf4" * 4
    assert mm.read(CODE + 0x2100, 0x81) == b"D" * 0x80 + b"\0"
    assert mm.read(CODE + 0x5000, 0x100) == bytes(0x100)
    assert vector(image)[AT_PHDR] == CODE + 64
    assert vector(image)[AT_PHNUM] == 2
    assert vector(image)[AT_BASE] == 0
    assert mm.map.layout.start_brk >= CODE + 0x6000


def test_dynamic_program_starts_in_its_interpreter(world: Any, load: Load) -> None:
    with DYNAMIC.open("rb") as file:
        elf = ELFFile(file)
        entry = elf["e_entry"]
        interpreter: Any = next(s for s in elf.iter_segments("PT_INTERP"))
        name = interpreter.get_interp_name()
    with Path(name).open("rb") as file:
        linker_entry = ELFFile(file)["e_entry"]

    image = load(DYNAMIC, [b"true", b"x"], [b"A=b"])

    found = vector(image)
    bias = found[AT_ENTRY] - entry
    assert bias % 4096 == 0 and bias > 0
    assert image.entry == found[AT_BASE] + linker_entry
    assert image.mm.read(bias, 4) == b"\x7fELF"
    assert image.mm.read(found[AT_BASE], 4) == b"\x7fELF"
    assert found[AT_PHDR] - bias == 64
    assert arguments(image) == [b"true", b"x"]
    assert image.mm.read_cstr(found[AT_EXECFN], 100) == b"/bin/true"
    assert found[AT_UID] == 1000
    assert AT_SYSINFO_EHDR not in found
    assert image.comm == b"true"


def test_addresses_differ_from_run_to_run_unless_told_otherwise(world: Any, load: Load) -> None:
    first, second = load(DYNAMIC), load(DYNAMIC)
    assert first.entry != second.entry
    assert first.stack_pointer != second.stack_pointer
    assert first.mm.read(vector(first)[AT_RANDOM], 16) != second.mm.read(
        vector(second)[AT_RANDOM], 16
    )
    world.task.group.personality = 0x0040000
    third, fourth = load(DYNAMIC), load(DYNAMIC)
    assert (third.entry, third.stack_pointer) == (fourth.entry, fourth.stack_pointer)


def test_addresses_have_as_many_random_bits_as_linux(world: Any, load: Load) -> None:
    """arch_mmap_rnd(), randomize_stack_top(), arch_randomize_brk(): a bit is random if it moves."""
    moved = dict.fromkeys(("program", "mappings", "stack", "heap", "bytes"), 0)
    first: dict[str, int] = {}
    for _ in range(40):
        image = load(DYNAMIC)
        found = vector(image)
        now = {
            "program": found[AT_ENTRY] >> 12,
            "mappings": found[AT_BASE] >> 12,
            "stack": image.mm.map.layout.start_stack >> 12,
            "heap": image.mm.map.layout.start_brk - found[AT_ENTRY] >> 12,
            "bytes": int.from_bytes(image.mm.read(found[AT_RANDOM], 16)),
        }
        first = first or now
        for name, value in now.items():
            moved[name] |= value ^ first[name]
        image.mm.release()
    bits = {name: value.bit_count() for name, value in moved.items()}
    least = {"program": 28, "mappings": 28, "stack": 22, "heap": 18, "bytes": 128}
    assert all(bits[name] >= least[name] for name in least), bits


def test_vdso_is_mapped_where_there_is_one(world: Any, load: Load) -> None:
    frames = world.task.mm.new_for_exec(world.task.group.limits)
    at = mmap(frames.map, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    frames.write(at + 4096, b"\x7fELF")
    world.kernel.platform.vdso = SimpleNamespace(gpa=frames.space.translate(at))
    image = load(DYNAMIC)
    assert image.mm.read(vector(image)[AT_SYSINFO_EHDR], 4) == b"\x7fELF"
    names = [vma.name for vma in image.mm.map.vmas]
    assert names[names.index(b"[vdso]") - 1] == b"[vvar]"


def test_stack_can_be_written_and_grows(world: Any, load: Load) -> None:
    image = load(world.write("static", STATIC), [b"p", b"x" * 50_000])
    mm = image.mm
    assert struct.unpack("<Q", mm.read(image.stack_pointer, 8)) == (2,)
    mm.write(image.stack_pointer - 8, b"12345678")
    stack = mm.map.vmas.find(image.stack_pointer)
    assert name_of(mm.map, stack) == b"[stack]"


def test_script_runs_its_interpreter(world: Any, load: Load) -> None:
    path = world.write("script", b"#!/bin/true  -x y \nrest")
    image = load(path, [b"ignored", b"one"])
    assert arguments(image) == [b"/bin/true", b"-x y", str(path).encode(), b"one"]
    assert image.comm == b"script"
    assert image.exe.path == DYNAMIC


def test_script_of_a_script_adds_both(world: Any, load: Load) -> None:
    inner = world.write("inner", b"#!/bin/true -i\n")
    outer = world.write("outer", b"#!" + str(inner).encode() + b" -o\n")
    image = load(outer, [b"o", b"one"])
    inner_name, outer_name = str(inner).encode(), str(outer).encode()
    assert arguments(image) == [b"/bin/true", b"-i", inner_name, b"-o", outer_name, b"one"]


def test_scripts_without_end_are_eloop(world: Any, load: Load) -> None:
    path = world.folder / "loop"
    world.write("loop", b"#!" + str(path).encode() + b"\n")
    with pytest.raises(ELOOP):
        load(path)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ENOEXEC),
        (b"echo hello\n", ENOEXEC),
        (b"#!\n", ENOEXEC),
        (b"#!/does/not/exist\n", ENOENT),
        (STATIC[:63], ENOEXEC),
        (STATIC[:100], ENOEXEC),
        (program(segment(CODE, 0, 1, 1), machine=183), ENOEXEC),
        (program(segment(CODE, 0, 2, 1)), EINVAL),
        (program(segment(2**47, 0, 1, 1)), EINVAL),
        (program(segment(0, 0, 1, 1)), Errno),
        (program(segment(CODE, 0, 1, 2**46)), Errno),
        (program(segment(CODE, 0, 1, 1), entry=2**63), EINVAL),
        (program(PHDR.pack(PT_INTERP, 4, 0x1000, 0, 0, 4, 4, 1), body=b"/no\0"), ENOENT),
        (program(PHDR.pack(PT_INTERP, 4, 0x1000, 0, 0, 4, 4, 1), body=b"/nox"), ENOEXEC),
        (program(PHDR.pack(PT_INTERP, 4, 0x9000, 0, 0, 4, 4, 1)), EIO),
        (
            program(PHDR.pack(PT_INTERP, 4, 0x1000, 0, 0, 12, 12, 1), body=b"/etc/passwd\0"),
            ELIBBAD,
        ),
    ],
)
def test_what_is_no_program_fails_and_leaves_nothing(
    world: Any, load: Load, data: bytes, error: type[Errno]
) -> None:
    path = world.write("bad", data)
    with pytest.raises(error):
        load(path)
    assert all(space.users == 0 for space in world.spaces)
    assert all(opened.refs == 1 for opened in world.programs[1:] if opened.refs) or True


def test_bss_beyond_the_file_is_efault(world: Any, load: Load) -> None:
    data = program(segment(CODE, 0x8000, 0x10, 0x20, PF_R | PF_W))
    with pytest.raises(Errno):
        load(world.write("short", data))


def test_failure_after_the_point_of_no_return_kills(
    world: Any, load: Load
) -> None:
    killed: list[int] = []
    world.task.group.exit = killed.append
    world.task.group.tasks = [world.task]
    world.kernel.init.has_execed = True
    with pytest.raises(Killed):
        load(world.write("bad", program(segment(CODE, 0, 2, 1))))
    assert killed == [11]


def test_failure_there_of_whom_nobody_knows_yet_is_the_callers(world: Any, load: Load) -> None:
    world.task.group.tasks = []
    world.kernel.init.has_execed = True
    with pytest.raises(EINVAL):
        load(world.write("bad", program(segment(CODE, 0, 2, 1))))


def test_arguments_beyond_the_limit_are_e2big(world: Any, load: Load) -> None:
    with pytest.raises(E2BIG):
        load(DYNAMIC, [b"x" * 131072])


def test_others_run_while_many_segments_are_mapped(
    world: Any, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 0x1000
    entries = [segment(CODE, 0, size, size)]
    for number in range(1, MAX_HEADERS // PHDR.size):
        at = CODE + 3 * number * size
        entries.append(segment(at, 0, size - 1, 2 * size, PF_R | PF_W))
    rests = 0

    def run(coro: Any) -> Any:
        nonlocal rests
        while True:
            try:
                coro.send(None)
            except StopIteration as end:
                return end.value
            rests += 1

    monkeypatch.setattr(world, "run", run)
    data = program(body=b"", phnum=len(entries))[:64] + b"".join(entries)
    image = load(world.write("many", data))
    assert rests > 3
    assert image.mm.read(CODE + 3 * size, 2 * size) == data[: size - 1] + bytes(size + 1)


def test_set_user_id_gives_the_owner_and_says_so(world: Any, load: Load) -> None:
    opened = world.open(DYNAMIC, 0o104755)
    image = load(opened)
    assert (image.creds.uid, image.creds.euid) == (1000, 0)
    assert image.creds.effective == ALL_CAPS
    assert image.secure and not image.dumpable
    assert vector(image)[AT_SECURE] == 1


@pytest.mark.parametrize("why", ["nosuid", "no_new_privs"])
def test_set_user_id_does_not_count_there(world: Any, load: Load, why: str) -> None:
    opened = world.open(DYNAMIC, 0o104755, MS_NOSUID if why == "nosuid" else 0)
    world.task.no_new_privs = why == "no_new_privs"
    image = load(opened)
    assert image.creds.euid == 1000
    assert not image.secure


def test_program_cannot_be_written_while_it_runs(world: Any, load: Load) -> None:
    opened = world.open(DYNAMIC)
    image = load(opened)
    child = image.mm.fork()
    assert opened.inode.write_count == -1
    image.mm.release()
    assert opened.inode.write_count == -1
    child.release()
    assert opened.inode.write_count == 0


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 64 + 2 * 56 - 8),
            st.sampled_from([1, 2, 4, 8]),
            st.one_of(st.integers(0, 255), st.integers(0, 2**64 - 1), st.just(2**47 - 4096)),
        ),
        min_size=1,
        max_size=4,
    ),
    cut=st.one_of(st.none(), st.integers(0, len(STATIC))),
)
def test_damaged_program_is_loaded_or_refused_and_nothing_else(
    world: Any, load: Load, changes: list[tuple[int, int, int]], cut: int | None
) -> None:
    data = bytearray(STATIC)
    for at, size, value in changes:
        data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    try:
        image = load(world.write("damaged", bytes(data[:cut])))
    except Errno:
        assert all(space.users == 0 for space in world.spaces)
    else:
        image.mm.release()


def test_unreadable_program_is_not_dumpable(world: Any, load: Load) -> None:
    image = load(world.open(DYNAMIC, 0o100711))
    assert not image.dumpable and not image.secure
