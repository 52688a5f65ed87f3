"""bpf(2): filters for the devices of cgroups, as container engines and systemd attach them.

kernel/bpf/syscall.c. Of union bpf_attr each command has some fields; all behind these must be 0.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

from sentry.abi import bpf as abi
from sentry.abi.capability import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.bpf.extended import INSTRUCTION_SIZE, DeviceFilter
from sentry.errors import E2BIG, EBADF, EINVAL, ENOENT, ENOSPC, Errno
from sentry.fs.bpf_program import ProgramFile
from sentry.kernel import device_filters
from sentry.kernel.cgroup import Cgroup
from sentry.kernel.device_filters import Program
from sentry.kernel.task import Task
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.registry import syscall
from sentry.syscalls.system.privileged import need
from sentry.syscalls.types import Addr, Int, UInt

SIZE: Final = 152
"""sizeof(union bpf_attr)."""
LICENSE_MAX: Final = 128
KINDS: Final[dict[int, tuple[int, ...]]] = {
    abi.BPF_PROG_TYPE_CGROUP_DEVICE: (0, abi.BPF_CGROUP_DEVICE),
    abi.BPF_PROG_TYPE_CGROUP_SKB: (0, 1),
}
"""Types of programs, and what each may say that it is attached as. Engines load one of the second
kind to see whether there is BPF_PROG_ATTACH at all; it can be attached nowhere."""
_LOAD: Final = struct.Struct("<IIQQIIQII16sII")
"""prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags,
prog_name, prog_ifindex, expected_attach_type"""
_ATTACH: Final = struct.Struct("<IIIII")
"""target_fd, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd"""
_QUERY: Final = struct.Struct("<IIIIQI4xQ")
"""target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt, prog_attach_flags"""
_BY_ID: Final = struct.Struct("<III")
"""prog_id or start_id, next_id, open_flags"""
_INFO: Final = struct.Struct("<IIQ")
"""bpf_fd, info_len, info"""
ATTACH_FLAGS: Final = (
    abi.BPF_F_ALLOW_OVERRIDE | abi.BPF_F_ALLOW_MULTI | abi.BPF_F_REPLACE
)
COUNT_AT, ATTACH_FLAGS_AT, NEXT_ID_AT, INFO_LEN_AT = 24, 12, 4, 4
"""Where in union bpf_attr the kernel writes."""


def _fields(attributes: bytes, layout: struct.Struct) -> tuple[Any, ...]:
    """CHECK_ATTR(). Raises: EINVAL."""
    if any(attributes[layout.size :]):
        raise EINVAL("fields that the command does not have")
    return layout.unpack_from(attributes)


def _program(task: Task, fd: int) -> Program:
    """Raises: EBADF, EINVAL."""
    file = task.files.get(fd)
    if not isinstance(file, ProgramFile):
        raise EINVAL(f"fd {fd} is no program")
    program: Program = file.program
    return program


def _device_program(task: Task, fd: int) -> Program:
    """Raises: EBADF, EINVAL."""
    program = _program(task, fd)
    if program.filter.kind != abi.BPF_PROG_TYPE_CGROUP_DEVICE:
        raise EINVAL("of another type")
    return program


def _cgroup(task: Task, fd: int) -> Cgroup:
    """cgroup_get_from_fd(). Raises: EBADF."""
    inode = task.files.get(fd).inode
    if not inode.is_dir or inode.fs.name != "cgroup2":
        raise EBADF(f"fd {fd} is no cgroup")
    found: Cgroup = inode.cgroup  # type: ignore[attr-defined]
    if found.dead:
        raise ENOENT("the cgroup is gone")
    return found


def _load(task: Task, address: int, attributes: bytes) -> int:
    """BPF_PROG_LOAD."""
    (
        kind, count, code, license_at, level, log_size, log, _, flags, name, interface, attach_type,
    ) = _fields(attributes, _LOAD)  # fmt: skip
    if flags or interface or level & ~0xF:
        raise EINVAL("flags")
    if not 0 < count <= abi.BPF_MAXINSNS:
        raise E2BIG(f"{count} instructions")
    need(task, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    if kind not in KINDS or attach_type not in KINDS[kind]:
        raise EINVAL(f"programs of type {kind}")
    name = name[: -1].partition(b"\0")[0]
    if not all(chr(each).isalnum() or each in b"_." for each in name):
        raise EINVAL("a name")
    programs = task.kernel.services.bpf_programs
    programs.check_room(count)
    data = task.mm.read(code, count * INSTRUCTION_SIZE)
    task.mm.read_cstr(license_at, LICENSE_MAX)
    try:
        checked = DeviceFilter(data, kind)
    except Errno as error:
        if level and log and log_size:
            task.mm.write(log, f"{error}\n".encode()[: log_size - 1] + b"\0")
        raise
    _check_descriptors(task)
    made_ns = task.kernel.loop.now_ns()
    return _open(task, Program(programs, checked, name, task.creds.uid, made_ns))


def _check_descriptors(task: Task) -> None:
    """There is one free. Raises: EMFILE."""
    task.files.free_from(0, task.rlimit(RLIMIT_NOFILE))


def _open(task: Task, program: Program) -> int:
    """A descriptor of it. Preconditions: one is free."""
    file = ProgramFile(task.kernel.vfs, program)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=True)


def _attach(task: Task, address: int, attributes: bytes) -> None:
    """BPF_PROG_ATTACH."""
    target, fd, kind, flags, replaced = _fields(attributes, _ATTACH)
    if flags & ~ATTACH_FLAGS or kind != abi.BPF_CGROUP_DEVICE:
        raise EINVAL("flags, or where")
    need(task, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    program = _device_program(task, fd)
    cgroup = _cgroup(task, target)
    old = _device_program(task, replaced) if flags & abi.BPF_F_REPLACE else None
    device_filters.attach(cgroup, program, flags, old)


def _detach(task: Task, address: int, attributes: bytes) -> None:
    """BPF_PROG_DETACH."""
    target, fd, kind, flags, _ = _fields(attributes, _ATTACH)
    if flags or kind != abi.BPF_CGROUP_DEVICE:
        raise EINVAL("flags, or where")
    need(task, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    cgroup = _cgroup(task, target)
    try:
        program: Program | None = _device_program(task, fd)
    except Errno:
        program = None
    device_filters.detach(cgroup, program)


def _query(task: Task, address: int, attributes: bytes) -> None:
    """BPF_PROG_QUERY: __cgroup_bpf_query()."""
    target, kind, flags, _, ids, count, each_flags = _fields(attributes, _QUERY)
    need(task, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    if flags & ~abi.BPF_F_QUERY_EFFECTIVE or kind != abi.BPF_CGROUP_DEVICE:
        raise EINVAL("flags, or where")
    cgroup, held = _cgroup(task, target), None
    if flags:
        if each_flags:
            raise EINVAL("flags of each")
        found = list(device_filters.effective(cgroup))
    else:
        held = cgroup.devices
        found = held.programs if held is not None else []
    own = held.flags if held is not None else 0
    task.mm.write(address + ATTACH_FLAGS_AT, own.to_bytes(4, "little"))
    task.mm.write(address + COUNT_AT, len(found).to_bytes(4, "little"))
    if not count or not ids or not found:
        return
    told = found[:count]
    task.mm.write(ids, b"".join(each.id.to_bytes(4, "little") for each in told))
    if each_flags:
        task.mm.write(each_flags, own.to_bytes(4, "little") * len(told))
    if count < len(found):
        raise ENOSPC("not all of them")


def _by_id(task: Task, address: int, attributes: bytes) -> int:
    """BPF_PROG_GET_FD_BY_ID."""
    number, _, flags = _fields(attributes, _BY_ID)
    if flags:
        raise EINVAL("open_flags")
    need(task, CAP_SYS_ADMIN)
    program = task.kernel.services.bpf_programs.by_id.get(number)
    if program is None:
        raise ENOENT(f"program {number}")
    _check_descriptors(task)
    return _open(task, program)


def _next_id(task: Task, address: int, attributes: bytes) -> None:
    """BPF_PROG_GET_NEXT_ID."""
    begin, _, flags = _fields(attributes, _BY_ID)
    if flags:
        raise EINVAL("open_flags")
    need(task, CAP_SYS_ADMIN)
    ids = list(task.kernel.services.bpf_programs.by_id)  # as they were made
    place = bisect_right(ids, begin)
    if place == len(ids):
        raise ENOENT("none after it")
    task.mm.write(address + NEXT_ID_AT, ids[place].to_bytes(4, "little"))


def _info(task: Task, address: int, attributes: bytes) -> None:
    """BPF_OBJ_GET_INFO_BY_FD: struct bpf_prog_info, without the instructions."""
    fd, size, where = _fields(attributes, _INFO)
    program = _program(task, fd)
    layout = abi.BPF_PROG_INFO
    if size > PAGE_SIZE:
        raise E2BIG("info_len")
    if any(task.mm.read(where, size)[layout.size :]):
        raise E2BIG("fields that are not there")
    told = layout.unpack(bytes(layout.size))._replace(
        type=program.filter.kind, id=program.id,
        xlated_prog_len=len(program.filter.data), load_time=program.made_ns,
        created_by_uid=task.creds.shown_uid(program.uid), name=program.name, gpl_compatible=1,
        verified_insns=len(program.filter),
    )  # fmt: skip
    written = min(size, layout.size)
    task.mm.write(where, layout.pack(*told)[:written])
    task.mm.write(address + INFO_LEN_AT, written.to_bytes(4, "little"))


COMMANDS: Final[dict[int, Callable[[Task, int, bytes], int | None]]] = {
    abi.BPF_PROG_LOAD: _load,
    abi.BPF_PROG_ATTACH: _attach,
    abi.BPF_PROG_DETACH: _detach,
    abi.BPF_PROG_QUERY: _query,
    abi.BPF_PROG_GET_FD_BY_ID: _by_id,
    abi.BPF_PROG_GET_NEXT_ID: _next_id,
    abi.BPF_OBJ_GET_INFO_BY_FD: _info,
}


@syscall(321, partial="programs for devices of cgroups, without stack, maps, helpers and loops")
def sys_bpf(task: Task, command: Int, attributes: Addr, size: UInt) -> int | None:
    """bpf(2): kernel.unprivileged_bpf_disabled is 2. What is not there: EINVAL."""
    need(task, CAP_BPF, CAP_SYS_ADMIN)
    if size > PAGE_SIZE:
        raise E2BIG("size")
    given = task.mm.read(attributes, size)
    if any(given[SIZE:]):
        raise E2BIG("fields that are not there")
    do = COMMANDS.get(command)
    if do is None:
        raise EINVAL(f"command {command}")
    return do(task, attributes, given[:SIZE].ljust(SIZE, b"\0"))
