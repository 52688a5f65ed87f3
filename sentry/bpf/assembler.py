"""An assembler for classic BPF.

Jumps name labels that are placed later (a classic BPF program only jumps forward). Conditional
jumps reach 255 instructions; one that must go farther is written with an unconditional jump, whose
operand has 32 bits, behind it.
"""

from __future__ import annotations

from msgspec import Struct

from sentry.bpf.isa import (
    ABS,
    ALU,
    AND,
    JA,
    JMP,
    LD,
    MAX_INSTRUCTIONS,
    RET,
    Instruction,
    K,
    Program,
)

_REACH = 255


class Label(Struct, frozen=True):
    """A place in the program; compared by identity of its number."""

    number: int


class _Jump(Struct, frozen=True):
    """A conditional jump before its distances are known."""

    code: int
    k: int
    true: Label
    false: Label


class Assembler:
    """Collects instructions; `assemble` resolves the labels."""

    def __init__(self) -> None:
        self._items: list[Instruction | _Jump | Label] = []
        self._labels = 0

    def label(self) -> Label:
        """A new label, placed nowhere yet."""
        self._labels += 1
        return Label(self._labels)

    def place(self, label: Label) -> None:
        """The label stands for the instruction that comes next."""
        self._items.append(label)

    def emit(self, code: int, k: int = 0) -> None:
        """Any instruction that does not jump."""
        self._items.append(Instruction(code, 0, 0, k & 0xFFFFFFFF))

    def load(self, offset: int) -> None:
        """A = the word at `offset`."""
        self.emit(LD | ABS, offset)

    def and_(self, mask: int) -> None:
        """A &= mask."""
        self.emit(ALU | AND | K, mask)

    def ret(self, value: int) -> None:
        """End with this result."""
        self.emit(RET | K, value)

    def jump(self, operation: int, k: int, true: Label, false: Label) -> None:
        """Compare A with `k` (JEQ, JGT, JGE, JSET) and go on at one of the labels."""
        self._items.append(_Jump(JMP | operation | K, k & 0xFFFFFFFF, true, false))

    def assemble(self) -> Program:
        """The program. Raises: ValueError for a label that is missing, behind, or out of reach."""
        wide: set[tuple[int, bool]] = set()
        while True:
            sizes = [self._size(index, wide) for index in range(len(self._items))]
            if sum(sizes) > MAX_INSTRUCTIONS:
                raise ValueError(f"program of {sum(sizes)} instructions")
            found = self._too_far(sizes, wide)
            if not found:
                return self._write(sizes, wide)
            wide |= found

    def _size(self, index: int, wide: set[tuple[int, bool]]) -> int:
        item = self._items[index]
        if isinstance(item, Label):
            return 0
        return 1 + ((index, True) in wide) + ((index, False) in wide)

    def _positions(self, sizes: list[int]) -> tuple[list[int], dict[Label, int]]:
        positions, labels, at = [], {}, 0
        for item, size in zip(self._items, sizes, strict=True):
            positions.append(at)
            if isinstance(item, Label):
                labels[item] = at
            at += size
        return positions, labels

    def _too_far(self, sizes: list[int], wide: set[tuple[int, bool]]) -> set[tuple[int, bool]]:
        positions, labels = self._positions(sizes)
        found = set()
        for index, item in enumerate(self._items):
            if not isinstance(item, _Jump):
                continue
            for branch, target in ((True, item.true), (False, item.false)):
                if target not in labels:
                    raise ValueError("a label is not placed")
                distance = labels[target] - positions[index] - 1
                if distance < 0:
                    raise ValueError("a jump backwards")
                if distance > _REACH and (index, branch) not in wide:
                    found.add((index, branch))
        return found

    def _write(self, sizes: list[int], wide: set[tuple[int, bool]]) -> Program:
        positions, labels = self._positions(sizes)
        made: list[Instruction] = []
        for index, item in enumerate(self._items):
            if isinstance(item, Label):
                continue
            if isinstance(item, Instruction):
                made.append(item)
                continue
            # the unconditional jumps of wide branches stand right behind, true before false
            at = positions[index]
            far: list[Instruction] = []
            distances = []
            for branch, target in ((True, item.true), (False, item.false)):
                if (index, branch) in wide:
                    distances.append(len(far))
                    place = at + 1 + len(far)
                    far.append(Instruction(JMP | JA, 0, 0, labels[target] - place - 1))
                else:
                    distances.append(labels[target] - at - 1)
            made.append(Instruction(item.code, distances[0], distances[1], item.k))
            made += far
        return tuple(made)
