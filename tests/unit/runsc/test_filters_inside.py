"""Everything that a role may not do, tried under its filter as the host's kernel enforces it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kvm.binding import lib as kvm
from runsc import filters
from runsc.filters import dialer, gofer, network, sentry
from runsc.filters.table import EXEMPT
from sentry.abi import capability, fcntl, ioctl, mman, prctl, sched, socket, unistd

SWEEP = Path(__file__).with_name("sweep.py")
ROLES = {
    "sentry": (sentry.rules("kvm"), filters.sentry_program("kvm", "none")),
    "sentry with host sockets": (
        sentry.rules("kvm", "host"),
        filters.sentry_program("kvm", "host"),
    ),
    "gofer": (gofer.rules(), filters.gofer_program()),
    "network": (network.rules(), filters.network_program()),
    "network with links": (network.rules(True), filters.network_program(uplinks=True)),
    "dialer": (dialer.rules(), filters.dialer_program()),
    "network with links of the host": (
        network.rules(True, True),
        filters.network_program(uplinks=True, listens=True),
    ),
}
X32 = 0x40000000
NONE = (1 << 64) - 1
THREAD = 0x3D0F00
Call = tuple[int, ...]

FORBIDDEN_ARGUMENTS: dict[str, Call] = {
    "memory that can be run": (unistd.mmap, 0, 4096, 7, 0x22, NONE, 0),
    "the same, with upper bits": (unistd.mmap, 0, 4096, mman.PROT_EXEC | 1 << 40, 0x22, NONE, 0),
    "making memory executable": (unistd.mprotect, 0x10000, 4096, mman.PROT_EXEC),
    "fork by clone": (unistd.clone, signal.SIGCHLD),
    "clone without shared handlers": (unistd.clone, THREAD & ~sched.CLONE_SIGHAND),
    "a thread in a new mount namespace": (unistd.clone, THREAD | sched.CLONE_NEWNS),
    "a thread in a new user namespace": (unistd.clone, THREAD | sched.CLONE_NEWUSER),
    "tgkill of another process": (unistd.tgkill, 2, 2, 9),
    "dumpable again": (unistd.prctl, prctl.PR_SET_DUMPABLE, 1),
    "death signal": (unistd.prctl, prctl.PR_SET_PDEATHSIG, 9),
    "another filter": (unistd.prctl, prctl.PR_SET_SECCOMP, 2, 0),
    "a capability": (unistd.prctl, prctl.PR_CAP_AMBIENT, 2, capability.CAP_SYS_ADMIN),
    "typing into a terminal": (unistd.ioctl, 1, ioctl.TIOCSTI, 0),
    "O_NONBLOCK by ioctl": (unistd.ioctl, 1, ioctl.FIONBIO, 0),
    "a virtual machine": (unistd.ioctl, 1, kvm.KVM_CREATE_VM, 0),
    "flags of a description": (unistd.fcntl, 1, fcntl.F_SETFL, 0),
    "owner of a description": (unistd.fcntl, 1, 8, 1),
    "status by name": (unistd.newfstatat, NONE - 99, 0, 0, 0),
    "limits": (unistd.prlimit64, 0, 7, 0, 0),
    "core of another process": (unistd.sched_setaffinity, 1, 0, 0),
    "packet socket": (unistd.socket, socket.AF_PACKET, socket.SOCK_RAW, 0),
    "raw socket": (unistd.socket, socket.AF_INET, socket.SOCK_RAW, 1),
    "SO_ATTACH_FILTER": (unistd.setsockopt, NONE, 1, 26, 0, 0),
}


def _sweep(program: bytes, calls: list[Call]) -> list[tuple[int, int]]:
    """(wait status, errno) of each."""
    packed = [struct.pack("7Q", *(*call, 0, 0, 0, 0, 0, 0)[:7]) for call in calls]
    done = subprocess.run(
        [sys.executable, "-I", "-S", SWEEP],
        input=struct.pack("II", len(program), len(calls)) + program + b"".join(packed),
        capture_output=True,
        check=True,
    )
    found = [line.split() for line in done.stdout.splitlines()]
    assert len(found) == len(calls)
    return [(int(status), int(error)) for status, error in found]


@pytest.mark.parametrize("role", ROLES)
def test_every_number_without_a_rule_kills_who_makes_the_call(role: str) -> None:
    rules, program = ROLES[role]
    known = {rule.number for rule in rules}
    numbers = [n for n in range(601) if n not in known and n not in EXEMPT]
    numbers += [X32 + n for n in (*range(0, 60), *range(512, 548))]
    numbers += [1023, 1 << 16, X32 - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]

    found = _sweep(program, [(n, NONE) for n in numbers])

    alive = {n for n, (status, _) in zip(numbers, found, strict=True) if status != signal.SIGSYS}
    assert alive == set()


@pytest.mark.parametrize("role", ROLES)
def test_numbers_that_linux_keeps_from_filters_do_nothing(role: str) -> None:
    """Linux 6.11 and 6.18 have one each; older ones give them to the filter."""
    for status, error in _sweep(ROLES[role][1], [(number,) for number in EXEMPT]):
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) in (signal.SIGSYS, signal.SIGILL)
        else:
            assert error != 0


@pytest.mark.parametrize("role", ROLES)
def test_forbidden_arguments_kill_who_makes_the_call(role: str) -> None:
    found = _sweep(ROLES[role][1], list(FORBIDDEN_ARGUMENTS.values()))

    named = zip(FORBIDDEN_ARGUMENTS, found, strict=True)
    assert {name for name, (status, _) in named if status != signal.SIGSYS} == set()


def test_sweep_sees_a_call_that_comes_back() -> None:
    rules, program = ROLES["gofer"]
    assert [rule.errno for rule in rules if rule.errno] == [38]
    calls = [(unistd.clone3, 0, 0), (unistd.gettid,), (unistd.close, NONE)]
    assert [(s >> 8, e) for s, e in _sweep(program, calls)] == [(7, 38), (7, 0), (7, 9)]
