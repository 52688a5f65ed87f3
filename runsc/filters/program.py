"""From a list of rules to a BPF program.

The architecture is checked first, then the number is found by halving the sorted list (about seven
comparisons), then the arguments. A number with bit 30 set (x32) is above all rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from runsc.filters.rule import Rule
from sentry.abi import seccomp
from sentry.bpf import isa
from sentry.bpf.assembler import Assembler, Label
from sentry.bpf.isa import Program

_NUMBER = 0
_ARCH = 4


def build(rules: Sequence[Rule], default: int = seccomp.SECCOMP_RET_KILL_PROCESS) -> Program:
    """Allow what the rules allow; `default` is the action for everything else."""
    ordered = sorted(rules, key=lambda rule: rule.number)
    numbers = [rule.number for rule in ordered]
    if len(set(numbers)) != len(numbers):
        raise ValueError("two rules for one system call")
    asm = Assembler()
    allow, refuse, right = asm.label(), asm.label(), asm.label()
    asm.load(_ARCH)
    asm.jump(isa.JEQ, seccomp.AUDIT_ARCH_X86_64, right, refuse)
    asm.place(right)
    asm.load(_NUMBER)
    bodies: list[tuple[Label, Rule]] = []
    _search(asm, ordered, bodies, allow, refuse)
    for label, rule in bodies:
        asm.place(label)
        _body(asm, rule, allow, refuse)
    asm.place(refuse)
    asm.ret(default)
    asm.place(allow)
    asm.ret(seccomp.SECCOMP_RET_ALLOW)
    return asm.assemble()


def _search(
    asm: Assembler,
    rules: Sequence[Rule],
    bodies: list[tuple[Label, Rule]],
    allow: Label,
    refuse: Label,
) -> None:
    """Halve until one rule is left; the number is in A."""
    if len(rules) > 1:
        middle = len(rules) // 2
        upper, lower = asm.label(), asm.label()
        asm.jump(isa.JGE, rules[middle].number, upper, lower)
        asm.place(lower)
        _search(asm, rules[:middle], bodies, allow, refuse)
        asm.place(upper)
        _search(asm, rules[middle:], bodies, allow, refuse)
    elif rules:
        rule = rules[0]
        body = allow
        if rule.when or rule.errno:
            body = asm.label()
            bodies.append((body, rule))
        asm.jump(isa.JEQ, rule.number, body, refuse)
    else:
        refuse_all = asm.label()
        asm.jump(isa.JEQ, 0, refuse, refuse_all)
        asm.place(refuse_all)


def _body(asm: Assembler, rule: Rule, allow: Label, refuse: Label) -> None:
    """The tests of one rule's arguments."""
    if rule.errno:
        asm.ret(seccomp.SECCOMP_RET_ERRNO | rule.errno)
        return
    for index, tests in enumerate(rule.when):
        following = refuse if index == len(rule.when) - 1 else asm.label()
        words = [word for test in tests for word in test.words()]
        for position, (offset, mask, value) in enumerate(words):
            asm.load(offset)
            if mask != 0xFFFFFFFF:
                asm.and_(mask)
            last = position == len(words) - 1
            holds = allow if last else asm.label()
            asm.jump(isa.JEQ, value, holds, following)
            if not last:
                asm.place(holds)
        if following is not refuse:
            asm.place(following)
