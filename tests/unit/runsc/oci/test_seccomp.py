"""Profiles of config.json, compiled and run over calls."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsc.errors import SpecError
from runsc.oci import spec
from runsc.oci.seccomp import CALLS, compile_profile
from sentry.abi.seccomp import (
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
)
from sentry.bpf import isa
from tests.unit.bpf.model import run_seccomp, seccomp_data
from tests.unit.bpf.model_check import check_seccomp

ALLOW = SECCOMP_RET_ALLOW
REFUSE = SECCOMP_RET_ERRNO | errno.EPERM
TOO_NEW = SECCOMP_RET_ERRNO | errno.ENOSYS
WORDS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 1, 5, (1 << 32) - 1, 1 << 32, 5 << 32, (5 << 32) + 5, (1 << 64) - 1]),
)


def _program(document: dict[str, Any]) -> isa.Program:
    warnings: list[str] = []
    profile = spec.decode(msgspec.json.encode(document), spec.Seccomp)
    program = isa.unpack(compile_profile(profile, warnings.append))
    assert warnings == []
    return check_seccomp(program)


def _run(
    program: isa.Program, call: str | int, *arguments: int, arch: int = AUDIT_ARCH_X86_64
) -> int:
    number = CALLS[call] if isinstance(call, str) else call
    return run_seccomp(program, seccomp_data(number, arch, 0, (*arguments, *[0] * 6)[:6]))


def _rule(names: list[str], action: str = "SCMP_ACT_ALLOW", **more: object) -> dict[str, Any]:
    return {"names": names, "action": action, **more}


def _test(index: int, op: str, value: int, two: int = 0) -> dict[str, object]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def test_calls_that_are_named_get_their_action_and_others_the_default() -> None:
    program = _program({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            _rule(["read", "write", "no_such_call"]),
            _rule(["getpid"], "SCMP_ACT_ERRNO", errnoRet=38),
            _rule(["statx"], "SCMP_ACT_TRACE", errnoRet=7),
            _rule(["openat"], "SCMP_ACT_LOG"),
        ],
    })  # fmt: skip

    assert _run(program, "read") == ALLOW
    assert _run(program, "getpid") == SECCOMP_RET_ERRNO | 38
    assert _run(program, "statx") == SECCOMP_RET_TRACE | 7
    assert _run(program, "openat") == SECCOMP_RET_LOG
    assert _run(program, "mkdir") == REFUSE


def test_calls_newer_than_the_profile_are_not_there() -> None:
    strict = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [_rule(["openat"])]}
    loose = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [_rule(["read"], "SCMP_ACT_ERRNO")]}

    assert _run(_program(strict), "clone3") == TOO_NEW
    assert _run(_program(loose), "clone3") == ALLOW


def test_other_architectures_are_killed() -> None:
    program = _program({"defaultAction": "SCMP_ACT_ALLOW"})
    with_x32 = _program({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X32"]})

    assert _run(program, "read", arch=0x40000003) == SECCOMP_RET_KILL_THREAD
    assert _run(program, 0x40000000) == SECCOMP_RET_KILL_THREAD
    assert _run(with_x32, 0x40000000) == ALLOW


def test_tests_of_one_rule_must_all_hold_unless_they_are_of_one_argument() -> None:
    program = _program({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            _rule(["socket"], args=[_test(0, "EQ", 1), _test(1, "EQ", 2)]),
            _rule(["personality"], args=[_test(0, "EQ", 0), _test(0, "EQ", 8)]),
        ],
    })  # fmt: skip

    assert [_run(program, "socket", a, b) for a, b in ((1, 2), (1, 3), (0, 2))] == [
        ALLOW, REFUSE, REFUSE,
    ]  # fmt: skip
    assert [_run(program, "personality", n) for n in (0, 8, 4)] == [ALLOW, ALLOW, REFUSE]


def test_a_rule_without_tests_counts_before_those_with() -> None:
    program = _program({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            _rule(["read"], "SCMP_ACT_KILL", args=[_test(0, "EQ", 1)]),
            _rule(["read"]),
            _rule(["write"], "SCMP_ACT_LOG", args=[_test(0, "GT", 1)]),
            _rule(["write"], args=[_test(0, "GT", 0)]),
        ],
    })  # fmt: skip

    assert _run(program, "read", 1) == ALLOW
    assert [_run(program, "write", n) for n in range(3)] == [REFUSE, ALLOW, SECCOMP_RET_LOG]


def test_a_rule_that_says_what_the_default_is_hides_no_other_one() -> None:
    program = _program({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            _rule(["mkdir", "read"]),
            _rule(["mkdir"], "SCMP_ACT_ERRNO"),
            _rule(["write"]),
            _rule(["write"], "SCMP_ACT_ERRNO", args=[_test(0, "EQ", 1)]),
        ],
    })  # fmt: skip
    strict = _program({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [_rule(["mkdir"], "SCMP_ACT_ERRNO"), _rule(["mkdir"]), _rule(["read"])],
    })  # fmt: skip

    assert _run(program, "mkdir") == REFUSE
    assert _run(program, "read") == ALLOW
    assert [_run(program, "write", n) for n in (0, 1)] == [ALLOW, REFUSE]
    assert _run(strict, "mkdir") == ALLOW


@given(index=st.integers(0, 5), value=WORDS, two=WORDS, given_value=WORDS)
def test_comparisons_are_of_64_bits(index: int, value: int, two: int, given_value: int) -> None:
    arguments = [0] * 6
    arguments[index] = given_value
    meanings = {
        "NE": given_value != value, "LT": given_value < value, "LE": given_value <= value,
        "EQ": given_value == value, "GE": given_value >= value, "GT": given_value > value,
        "MASKED_EQ": given_value & value == two & value,
    }  # fmt: skip
    for op, holds in meanings.items():
        rule = _rule(["read"], args=[_test(index, op, value, two)])
        program = _program({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})
        assert _run(program, "read", *arguments) == (ALLOW if holds else REFUSE), op


def test_profile_of_every_call_with_tests_is_compiled() -> None:
    rules = [_rule([name], args=[_test(0, "EQ", n)]) for name, n in CALLS.items()]
    program = _program({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})

    assert all(_run(program, n, n) == ALLOW and _run(program, n, 999) == REFUSE
               for n in CALLS.values())  # fmt: skip


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"defaultAction": "SCMP_ACT_X"}, "defaultAction", "string SCMP_ACT_X is not a valid"),
        ({"architectures": ["SCMP_ARCH_Z80"]}, "architectures[0]", "not a valid arch"),
        ({"flags": ["X"]}, "flags[0]", "not known"),
        ({"listenerPath": "/s"}, "listenerPath", "not supported"),
        ({"syscalls": [_rule(["read"], "SCMP_ACT_NOTIFY")]}, "syscalls[0].action", "notification"),
        (
            {"syscalls": [_rule(["read"], args=[_test(6, "EQ", 0)])]},
            "syscalls[0].args[0].index",
            "no argument 6",
        ),
        (
            {"syscalls": [_rule(["read"], args=[_test(0, "IS", 0)])]},
            "syscalls[0].args[0].op",
            "not a valid operator",
        ),
        ({"syscalls": [_rule([])]}, "syscalls[0].names", "at least one"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(
    change: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        _program({"defaultAction": "SCMP_ACT_ALLOW", **change})

    assert caught.value.path == f"$.linux.seccomp.{path}"
