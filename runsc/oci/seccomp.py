"""linux.seccomp of config.json as a BPF program for the container's first process.

Names are OCI's (config-linux.md, "Seccomp"), meanings those that runc and libseccomp give them: an
unknown name of a call is left out, and so is a rule that says what the default is; of the rules of
one call, the first without arguments counts alone, else the first whose arguments fit; two tests of
one argument are alternatives; a call newer than all that the profile names fails with ENOSYS, so
that a program can fall back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct, field

from runsc.errors import SpecError
from runsc.oci import spec
from sentry.abi import seccomp as abi
from sentry.abi import unistd
from sentry.bpf import isa
from sentry.bpf.assembler import Assembler, Label
from sentry.errors import ENOSYS, EPERM

CALLS = {
    name.rstrip("_"): number for name, number in vars(unistd).items() if isinstance(number, int)
}
X32_BIT = 0x40000000
ACTIONS = {
    "SCMP_ACT_KILL": abi.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": abi.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": abi.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": abi.SECCOMP_RET_TRAP,
    "SCMP_ACT_ERRNO": abi.SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRACE": abi.SECCOMP_RET_TRACE,
    "SCMP_ACT_ALLOW": abi.SECCOMP_RET_ALLOW,
    "SCMP_ACT_LOG": abi.SECCOMP_RET_LOG,
}
PERMISSIVE = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"})
OPERATORS = frozenset(
    {f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")}
)
ARCHITECTURES = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL",
        "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC",
        "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB",
    )
)  # fmt: skip
FLAGS = frozenset(
    f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
)
MAX_RETURN = 0xFFFF
WORD = 0xFFFFFFFF
WHERE = "$.linux.seccomp"


class _Call(Struct):
    """What is to be done about one system call."""

    always: int | None = None
    when: list[tuple[Sequence[spec.SeccompArg], int]] = field(default_factory=list)


def compile_profile(profile: spec.Seccomp, warn: Callable[[str], None]) -> bytes:
    """The program as packed struct sock_filter. Raises: SpecError."""
    _check(profile)
    default = _action(profile.default_action, profile.default_errno_ret, f"{WHERE}.defaultAction")
    calls: dict[int, _Call] = {}
    unknown: list[str] = []
    for index, rule in enumerate(profile.syscalls or []):
        where = f"{WHERE}.syscalls[{index}]"
        action = _action(rule.action, rule.errno_ret, f"{where}.action")
        for position, test in enumerate(rule.args or []):
            _check_test(test, f"{where}.args[{position}]")
        if not rule.names:
            raise SpecError(f"{where}.names", "a rule names at least one system call")
        for name in rule.names:
            number = CALLS.get(name)
            if number is None:
                unknown.append(name)
                continue
            call = calls.setdefault(number, _Call())
            if action != default:
                _add(call, rule.args or [], action)
    for call in calls.values():
        if not call.when and call.always is None:
            call.always = default
    if unknown and not calls:
        warn(f"seccomp: unknown system calls: {', '.join(unknown)}")
    try:
        return isa.pack(_assemble(profile, calls, default))
    except ValueError as error:
        raise SpecError(WHERE, f"the profile is too large: {error}") from None


def _check(profile: spec.Seccomp) -> None:
    for index, name in enumerate(profile.architectures or []):
        if name not in ARCHITECTURES:
            path = f"{WHERE}.architectures[{index}]"
            raise SpecError(path, f"string {name} is not a valid arch for seccomp")
    for index, name in enumerate(profile.flags or []):
        if name not in FLAGS:
            raise SpecError(f"{WHERE}.flags[{index}]", f"seccomp flag {name} is not known")
    if profile.listener_path or profile.listener_metadata:
        raise SpecError(f"{WHERE}.listenerPath", "seccomp notification is not supported")


def _action(name: str, errno: int | None, where: str) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise SpecError(where, "seccomp notification is not supported")
    if name not in ACTIONS:
        raise SpecError(where, f"string {name} is not a valid action for seccomp")
    action = ACTIONS[name]
    if name not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return action
    data = EPERM.number if errno is None else errno
    if data > MAX_RETURN:
        raise SpecError(where, f"errnoRet {data} has more than 16 bits")
    return action | data


def _check_test(test: spec.SeccompArg, where: str) -> None:
    if test.index > 5:
        raise SpecError(f"{where}.index", f"a system call has no argument {test.index}")
    if test.op not in OPERATORS:
        raise SpecError(f"{where}.op", f"string {test.op} is not a valid operator for seccomp")
    if test.value >> 64 or test.value_two >> 64:
        raise SpecError(f"{where}.value", "a value has at most 64 bits")


def _add(call: _Call, tests: Sequence[spec.SeccompArg], action: int) -> None:
    if not tests:
        call.always = action if call.always is None else call.always
    elif len({test.index for test in tests}) < len(tests):
        call.when += [((test,), action) for test in tests]
    else:
        call.when.append((tests, action))


class _Results:
    """One instruction for each result, at the end of the program."""

    def __init__(self, asm: Assembler) -> None:
        self._asm = asm
        self._labels: dict[int, Label] = {}

    def label(self, value: int) -> Label:
        """Where to jump for this result."""
        if value not in self._labels:
            self._labels[value] = self._asm.label()
        return self._labels[value]

    def place(self) -> None:
        """Write them."""
        for value, label in self._labels.items():
            self._asm.place(label)
            self._asm.ret(value)


def _assemble(profile: spec.Seccomp, calls: dict[int, _Call], default: int) -> isa.Program:
    asm = Assembler()
    results = _Results(asm)
    alien = results.label(abi.SECCOMP_RET_KILL_THREAD)
    right, native = asm.label(), asm.label()
    asm.load(4)
    asm.jump(isa.JEQ, abi.AUDIT_ARCH_X86_64, right, alien)
    asm.place(right)
    asm.load(0)
    if calls and profile.default_action not in PERMISSIVE:
        asm.jump(isa.JGT, max(calls), results.label(abi.SECCOMP_RET_ERRNO | ENOSYS.number), native)
    elif "SCMP_ARCH_X32" in (profile.architectures or []):
        asm.jump(isa.JGE, X32_BIT, results.label(default), native)
    else:
        asm.jump(isa.JGE, X32_BIT, alien, native)
    asm.place(native)
    bodies: list[tuple[Label, _Call]] = []
    _search(asm, sorted(calls.items()), bodies, results, default)
    for label, call in bodies:
        asm.place(label)
        for index, (tests, action) in enumerate(call.when):
            is_last = index == len(call.when) - 1
            following = results.label(default) if is_last else asm.label()
            for test in tests[:-1]:
                holds = asm.label()
                _test(asm, test, holds, following)
                asm.place(holds)
            _test(asm, tests[-1], results.label(action), following)
            if not is_last:
                asm.place(following)
    results.place()
    return asm.assemble()


def _search(
    asm: Assembler,
    calls: Sequence[tuple[int, _Call]],
    bodies: list[tuple[Label, _Call]],
    results: _Results,
    default: int,
) -> None:
    """Halve until one call is left; its number is in A."""
    if len(calls) > 1:
        middle = len(calls) // 2
        upper, lower = asm.label(), asm.label()
        asm.jump(isa.JGE, calls[middle][0], upper, lower)
        asm.place(lower)
        _search(asm, calls[:middle], bodies, results, default)
        asm.place(upper)
        _search(asm, calls[middle:], bodies, results, default)
        return
    other = results.label(default)
    if not calls:
        asm.jump(isa.JGE, 0, other, other)
        return
    number, call = calls[0]
    if call.always is not None:
        asm.jump(isa.JEQ, number, results.label(call.always), other)
        return
    body = asm.label()
    bodies.append((body, call))
    asm.jump(isa.JEQ, number, body, other)


def _test(asm: Assembler, test: spec.SeccompArg, holds: Label, fails: Label) -> None:
    """Whether one argument, of 64 bits, is as it shall be."""
    yes, no = holds, fails
    if test.op in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
        yes, no = no, yes
    mask, value = (1 << 64) - 1, test.value
    if test.op == "SCMP_CMP_MASKED_EQ":
        mask, value = test.value, test.value_two & test.value
    operation = {
        "SCMP_CMP_GE": isa.JGE, "SCMP_CMP_LT": isa.JGE,
        "SCMP_CMP_GT": isa.JGT, "SCMP_CMP_LE": isa.JGT,
    }.get(test.op, isa.JEQ)  # fmt: skip
    low_word = 16 + 8 * test.index
    same = asm.label()
    asm.load(low_word + 4)
    if mask >> 32 != WORD:
        asm.and_(mask >> 32)
    if operation != isa.JEQ:
        not_above = asm.label()
        asm.jump(isa.JGT, value >> 32, yes, not_above)
        asm.place(not_above)
    asm.jump(isa.JEQ, value >> 32, same, no)
    asm.place(same)
    asm.load(low_word)
    if mask & WORD != WORD:
        asm.and_(mask & WORD)
    asm.jump(operation, value & WORD, yes, no)
