from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from kvm.binding import lib as kvm
from runsc.filters import dialer as dialer_rules
from runsc.filters import forkable as forkable_rules
from runsc.filters import gofer as gofer_rules
from runsc.filters import network as network_rules
from runsc.filters import sentry as sentry_rules
from runsc.filters import table
from runsc.filters.program import build
from runsc.filters.rule import Rule
from sentry.abi import fcntl, ioctl, mman, seccomp, socket, unistd
from sentry.bpf.isa import Program
from tests.unit.bpf.model import run_seccomp, seccomp_data
from tests.unit.bpf.model_check import check_seccomp

X86_64 = seccomp.AUDIT_ARCH_X86_64
ALLOW, KILL = seccomp.SECCOMP_RET_ALLOW, seccomp.SECCOMP_RET_KILL_PROCESS
THREAD = 0x3D0F00
FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
LISTS = {
    "sentry": sentry_rules.rules("kvm"),
    "sentry on unicorn": sentry_rules.rules("unicorn"),
    "sentry with uplinks": sentry_rules.rules("kvm", "sandbox"),
    "sentry with host sockets": sentry_rules.rules("kvm", "host"),
    "forkable sentry": forkable_rules.rules(is_sealed=False),
    "fork": forkable_rules.rules(is_sealed=True),
    "forkable sentry with uplinks": forkable_rules.rules("sandbox", is_sealed=False),
    "fork with uplinks": forkable_rules.rules("sandbox", is_sealed=True),
    "gofer": gofer_rules.rules(),
    "network": network_rules.rules(),
    "dialer": dialer_rules.rules(),
}


@cache
def _program(name: str) -> Program:
    return check_seccomp(build(LISTS[name]))


def _verdict(name: str, number: int, *arguments: int, arch: int = X86_64) -> int:
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return run_seccomp(_program(name), seccomp_data(number, arch, 0, padded))


@pytest.mark.parametrize("name", LISTS)
def test_every_rule_has_a_reason(name: str) -> None:
    assert [rule.number for rule in LISTS[name] if len(rule.reason) < 5] == []


@pytest.mark.parametrize("name", LISTS)
def test_every_number_without_a_rule_is_killed(name: str) -> None:
    program = _program(name)
    known = {rule.number for rule in LISTS[name]}

    for number in [*range(-1, 600), 0x40000000 + unistd.read]:
        if number not in known:
            data = seccomp_data(number, X86_64, 0, (0,) * 6)
            assert run_seccomp(program, data) == KILL, number


@pytest.mark.parametrize("name", LISTS)
def test_other_architectures_are_killed(name: str) -> None:
    assert _verdict(name, unistd.write) == ALLOW
    assert _verdict(name, unistd.write, arch=0x40000003) == KILL


MAKE_THREADS = ("gofer", "forkable sentry", "forkable sentry with uplinks")


@pytest.mark.parametrize("name", [name for name in LISTS if name not in MAKE_THREADS])
def test_only_the_gofer_makes_threads(name: str) -> None:
    assert _verdict(name, unistd.clone, THREAD) == KILL
    assert _verdict(name, unistd.clone3) == KILL


def test_clone_in_the_gofer_makes_threads_with_exactly_the_flags_of_pthread_create() -> None:
    assert _verdict("gofer", unistd.clone, THREAD) == ALLOW
    assert _verdict("gofer", unistd.clone3) == seccomp.SECCOMP_RET_ERRNO | 38
    for bit in range(64):
        assert _verdict("gofer", unistd.clone, THREAD ^ 1 << bit) == KILL, bit


def test_forkable_sentry_forks_and_makes_threads_with_exactly_those_flags() -> None:
    for flags in (THREAD, forkable_rules.FORK):
        assert _verdict("forkable sentry", unistd.clone, flags) == ALLOW
        for bit in range(64):
            assert _verdict("forkable sentry", unistd.clone, flags ^ 1 << bit) == KILL, bit
    assert _verdict("forkable sentry", unistd.clone3) == seccomp.SECCOMP_RET_ERRNO | 38


@pytest.mark.parametrize("more", ["", " with uplinks"])
def test_fork_may_do_what_a_sentry_may_and_keep_its_streams(more: str) -> None:
    own = {rule.number for rule in LISTS["fork" + more]}
    assert own - {rule.number for rule in LISTS["sentry" + more]} == {unistd.dup3}
    assert _verdict("fork", unistd.dup3, 5, 6, fcntl.O_CLOEXEC) == ALLOW
    assert _verdict("fork", unistd.dup3, 5, 6, 0) == KILL
    for request in forkable_rules.MAKES:
        assert _verdict("forkable sentry", unistd.ioctl, 5, request) == ALLOW
        assert _verdict("fork", unistd.ioctl, 5, request) == KILL
    for rule in forkable_rules.BEGINNING:
        assert _verdict("fork", rule.number) == KILL


@pytest.mark.parametrize("name", ["forkable sentry", "fork"])
def test_signals_of_a_fork_are_kicks_alone(name: str) -> None:
    assert _verdict(name, unistd.tgkill, 7, 8, forkable_rules.KICK) == ALLOW
    for number in range(1, 65):
        wanted = ALLOW if number == forkable_rules.KICK else KILL
        assert _verdict(name, unistd.tgkill, 1, 1, number) == wanted


def test_sentry_makes_few_calls_of_the_host() -> None:
    assert len(LISTS["sentry"]) <= 50
    assert len(LISTS["sentry with host sockets"]) <= 60


@pytest.mark.parametrize("name", ["TCGETS", "TCSETS", "TCSETSW", "TCSETSF"])
def test_terminals_are_asked_as_any_c_library_does(name: str) -> None:
    """glibc has the second form since 2.42: tcgetattr(3), isatty(3)."""
    for request in (getattr(ioctl, name), getattr(ioctl, f"{name}2")):
        assert _verdict("sentry", unistd.ioctl, 0, request) == ALLOW


def test_flags_of_donated_descriptors_stay_as_they_are() -> None:
    for name in LISTS:
        assert _verdict(name, unistd.fcntl, 0, fcntl.F_SETFL) == KILL
        assert _verdict(name, unistd.ioctl, 0, ioctl.FIONBIO) == KILL


def test_gofer_asks_for_the_status_of_descriptors_alone() -> None:
    assert _verdict("gofer", unistd.newfstatat, 5, 0, 0, fcntl.AT_EMPTY_PATH) == ALLOW
    assert _verdict("gofer", unistd.newfstatat, 5, 0, 0, 0) == KILL
    assert _verdict("gofer", unistd.prlimit64) == KILL


@pytest.mark.parametrize("name", ["sentry", "gofer"])
def test_memory_is_never_executable(name: str) -> None:
    for number in (unistd.mmap, unistd.mprotect):
        assert _verdict(name, number, 0, 4096, 3) == ALLOW
        assert _verdict(name, number, 0, 4096, mman.PROT_EXEC) == KILL
        assert _verdict(name, number, 0, 4096, mman.PROT_EXEC | 1 << 40) == KILL


def test_ioctl_is_allowed_by_request_and_ignores_the_upper_half_as_linux_does() -> None:
    assert _verdict("sentry", unistd.ioctl, 5, kvm.KVM_RUN) == ALLOW
    assert _verdict("sentry", unistd.ioctl, 5, kvm.KVM_RUN | 1 << 32) == ALLOW
    assert _verdict("sentry", unistd.ioctl, 5, kvm.KVM_CREATE_VM) == KILL
    assert _verdict("sentry", unistd.ioctl, 0, 0x5412) == KILL
    assert _verdict("sentry on unicorn", unistd.ioctl, 5, kvm.KVM_RUN) == KILL


def test_signals_go_to_threads_of_this_process_only() -> None:
    assert _verdict("sentry", unistd.tgkill, 1, 5, 10) == ALLOW
    assert _verdict("sentry", unistd.tgkill, 2, 2, 9) == KILL
    assert _verdict("sentry", unistd.tgkill, 0xFFFFFFFFFFFFFFFF, 5, 9) == KILL


def test_table_of_host_calls_is_what_would_be_generated() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "host-calls.md"
    assert page.read_text() == "\n".join(table.lines()) + "\n", (
        "run: python -m runsc.filters.table > docs/host-calls.md"
    )


def test_build_of_two_rules_for_one_call_is_refused() -> None:
    with pytest.raises(ValueError, match="two rules"):
        build([Rule(0, "start", "a"), Rule(0, "start", "b")])


def test_build_of_any_number_of_rules_finds_each() -> None:
    for count in (0, 1, 2, 7, 200):
        program = check_seccomp(build([Rule(3 * n, "start", "r") for n in range(count)]))
        verdicts = [
            run_seccomp(program, seccomp_data(n, X86_64, 0, (0,) * 6)) for n in range(3 * count + 3)
        ]
        assert [n for n, v in enumerate(verdicts) if v == ALLOW] == list(range(0, 3 * count, 3))


def test_network_process_makes_sockets_of_the_internet_only() -> None:
    """Neither Unix sockets, whose abstract names are the host's, nor netlink, nor raw ones."""
    for family in range(64):
        for kind in range(1, 11):
            wanted = ALLOW if family in (2, 10) and kind in (1, 2) else KILL
            values = family, kind | FLAGS, 0
            assert _verdict("network", unistd.socket, *values) == wanted, values
            assert _verdict("sentry with host sockets", unistd.socket, *values) == KILL


def test_dialer_makes_streams_of_unix_sockets_only() -> None:
    for family in range(64):
        for kind in range(1, 11):
            wanted = ALLOW if (family, kind) == (1, 1) else KILL
            values = family, kind | FLAGS, 0
            assert _verdict("dialer", unistd.socket, *values) == wanted, values
    assert _verdict("dialer", unistd.socket, 1, 1 | socket.SOCK_CLOEXEC, 0) == KILL  # would block
    for number in (unistd.bind, unistd.listen, unistd.accept4, unistd.openat, unistd.socketpair):
        assert _verdict("dialer", number) == KILL
    assert _verdict("dialer", unistd.sendto, 5, 0, 1, 0, 0) == ALLOW
    assert _verdict("dialer", unistd.sendto, 5, 0, 1, 0, 1 << 32) == KILL
