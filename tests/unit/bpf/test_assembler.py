from __future__ import annotations

import pytest

from sentry.bpf import isa
from sentry.bpf.assembler import Assembler
from tests.unit.bpf.model import run_seccomp, seccomp_data
from tests.unit.bpf.model_check import check_seccomp


def _equality_chain(values: range) -> isa.Program:
    """Return 1000 + value for a number that is one of the values, else 7."""
    asm = Assembler()
    asm.load(0)
    ends = []
    for value in values:
        hit, miss = asm.label(), asm.label()
        asm.jump(isa.JEQ, value, hit, miss)
        asm.place(miss)
        ends.append((hit, value))
    asm.ret(7)
    for hit, value in ends:
        asm.place(hit)
        asm.ret(1000 + value)
    return asm.assemble()


@pytest.mark.parametrize("count", [1, 200, 600])
def test_assemble_with_jumps_near_and_far_reaches_every_label(count: int) -> None:
    program = check_seccomp(_equality_chain(range(count)))

    results = [run_seccomp(program, seccomp_data(n, 0, 0, (0,) * 6)) for n in range(count + 1)]

    assert results == [1000 + n for n in range(count)] + [7]


def test_assemble_with_jump_backwards_is_refused() -> None:
    asm = Assembler()
    label = asm.label()
    asm.place(label)
    asm.load(0)
    asm.jump(isa.JEQ, 0, label, label)
    asm.ret(0)

    with pytest.raises(ValueError, match="backwards"):
        asm.assemble()


def test_assemble_with_label_never_placed_is_refused() -> None:
    asm = Assembler()
    asm.jump(isa.JEQ, 0, asm.label(), asm.label())
    asm.ret(0)

    with pytest.raises(ValueError, match="not placed"):
        asm.assemble()


def test_pack_and_unpack_give_the_same_program() -> None:
    program = _equality_chain(range(5))

    assert isa.unpack(isa.pack(program)) == program
