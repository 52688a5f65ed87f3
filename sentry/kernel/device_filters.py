"""Filters of cgroups for devices: extended BPF programs, where they are attached, whom they ask.

kernel/bpf/cgroup.c, Documentation/admin-guide/cgroup-v2.rst ("Device controller"). A program lives
as long as a descriptor or a cgroup has it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sentry.abi import bpf as abi
from sentry.abi.stat import S_IFBLK
from sentry.errors import E2BIG, EINVAL, ENOENT, ENOMEM, EPERM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.bpf.extended import DeviceFilter
    from sentry.kernel.cgroup import Cgroup

MAX_OF_CGROUP: Final = 64
"""BPF_CGROUP_MAX_PROGS."""
MAX_INSTRUCTIONS: Final = 1 << 18
"""Of all programs: a ceiling of ours."""
MOST_IN_LOOK: Final = 1 << 14
"""Instructions for one question: beyond that the answer is no."""
KINDS: Final = abi.BPF_F_ALLOW_OVERRIDE | abi.BPF_F_ALLOW_MULTI


class Programs:
    """All of a sandbox."""

    __slots__ = ("_last", "by_id", "instructions")

    def __init__(self) -> None:
        self.by_id: dict[int, Program] = {}
        self.instructions = 0
        self._last = 0

    def check_room(self, count: int) -> None:
        """For a program of so many instructions. Raises: ENOMEM."""
        if self.instructions + count > MAX_INSTRUCTIONS:
            raise ENOMEM("too many instructions of extended BPF")

    def add(self, program: Program) -> int:
        """Its number."""
        self._last += 1
        self.by_id[self._last] = program
        self.instructions += len(program.filter)
        return self._last

    def drop(self, program: Program) -> None:
        """Nobody has it any more."""
        del self.by_id[program.id]
        self.instructions -= len(program.filter)


class Program:
    """One program; `users` are descriptors and cgroups, and without any it is not among all."""

    __slots__ = ("_programs", "filter", "id", "made_ns", "name", "uid", "users")

    def __init__(
        self, programs: Programs, code: DeviceFilter, name: bytes, uid: int, made_ns: int
    ) -> None:
        self.filter = code
        self.name = name
        self.uid = uid
        self.made_ns = made_ns
        self.users = 0
        self.id = 0
        self._programs = programs

    def hold(self) -> Program:
        """One user more; with the first one it has a number."""
        if not self.users:
            self.id = self._programs.add(self)
        self.users += 1
        return self

    def release(self) -> None:
        """One less."""
        self.users -= 1
        if not self.users:
            self._programs.drop(self)


class DeviceFilters:
    """Those of one cgroup."""

    __slots__ = ("flags", "programs")

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.programs: list[Program] = []

    @property
    def has_many(self) -> bool:
        """BPF_F_ALLOW_MULTI."""
        return bool(self.flags & abi.BPF_F_ALLOW_MULTI)


def _check_above(cgroup: Cgroup) -> None:
    """hierarchy_allows_attach(). Raises: EPERM."""
    for at in cgroup.up():
        if at is cgroup or at.devices is None:
            continue
        if at.devices.has_many:
            return
        if not at.devices.flags & abi.BPF_F_ALLOW_OVERRIDE:
            raise EPERM("one further up lets nobody below have others")
        return


def attach(cgroup: Cgroup, program: Program, flags: int, replaced: Program | None) -> None:
    """__cgroup_bpf_attach(). Raises: EINVAL, EPERM, ENOENT, E2BIG."""
    kind = flags & KINDS
    if kind == KINDS or (flags & abi.BPF_F_REPLACE and not kind & abi.BPF_F_ALLOW_MULTI):
        raise EINVAL("flags")
    _check_above(cgroup)
    held = cgroup.devices
    if held is not None and held.flags != kind:
        raise EPERM("there are some with other flags")
    programs = held.programs if held is not None else []
    if len(programs) >= MAX_OF_CGROUP:
        raise E2BIG("too many programs")
    place = len(programs)
    if kind & abi.BPF_F_ALLOW_MULTI:
        if program in programs and program is not replaced:
            raise EINVAL("it is attached already")
        if replaced is not None:
            if replaced not in programs:
                raise ENOENT("the program to be replaced")
            place = programs.index(replaced)
    else:
        place = 0
    if held is None:
        held = cgroup.devices = DeviceFilters(kind)
    old = held.programs[place : place + 1]
    held.programs[place : place + 1] = [program.hold()]
    for each in old:
        each.release()


def detach(cgroup: Cgroup, program: Program | None) -> None:
    """__cgroup_bpf_detach(). Raises: EINVAL, ENOENT."""
    held = cgroup.devices
    if held is None or (held.has_many and program is not None and program not in held.programs):
        raise ENOENT("no such program here")
    if held.has_many and program is None:
        raise EINVAL("which one")
    gone = program if held.has_many and program is not None else held.programs[0]
    held.programs.remove(gone)
    if not held.programs:
        cgroup.devices = None
    gone.release()


def removed(cgroup: Cgroup) -> None:
    """The cgroup is no more: cgroup_bpf_release()."""
    if cgroup.devices is not None:
        for program in cgroup.devices.programs:
            program.release()
        cgroup.devices = None


def effective(cgroup: Cgroup) -> Iterator[Program]:
    """compute_effective_progs(): its own, and those further up that go with others."""
    is_first = True
    for at in cgroup.up():
        if at.devices is not None and (is_first or at.devices.has_many):
            yield from at.devices.programs
            is_first = False


def check(cgroup: Cgroup, kind: int, rdev: int, access: int) -> None:
    """Whether those in a cgroup may use a device; `access`: BPF_DEVCG_ACC_*.

    devcgroup_check_permission(). Raises: EPERM.
    """
    what = abi.BPF_DEVCG_DEV_BLOCK if kind == S_IFBLK else abi.BPF_DEVCG_DEV_CHAR
    asked = abi.BPF_CGROUP_DEV_CTX.pack(access << 16 | what, os.major(rdev), os.minor(rdev))
    left = MOST_IN_LOOK
    for program in effective(cgroup):
        result, taken = program.filter.run(asked)
        left -= taken
        if not result & 1 or left < 0:
            raise EPERM(f"a device: program {program.id} of the cgroup")
