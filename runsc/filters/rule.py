"""A rule of an allow-list, as data."""

from __future__ import annotations

import msgspec

_WORD = 0xFFFFFFFF


class Test(msgspec.Struct, frozen=True):
    """`argument & mask == value`, on the 64 bits of one argument."""

    argument: int
    value: int
    mask: int = (1 << 64) - 1

    def words(self) -> list[tuple[int, int, int]]:
        """(offset in seccomp_data, mask, value) of the halves that matter, low one first."""
        base = 16 + 8 * self.argument
        halves = [
            (base, self.mask & _WORD, self.value & _WORD),
            (base + 4, self.mask >> 32, self.value >> 32),
        ]
        return [half for half in halves if half[1]]


class Rule(msgspec.Struct, frozen=True):
    """One system call: why it is needed, and with which arguments.

    `use` is the run of tests/e2e/test_filter_use.py that makes the call.
    `when` holds alternatives; each is a tuple of tests that must all hold. Empty: any arguments.
    `errno` is for calls that are not allowed, but answered instead of killing.
    """

    number: int
    use: str
    reason: str
    when: tuple[tuple[Test, ...], ...] = ()
    errno: int = 0


def low(argument: int, value: int) -> Test:
    """The C type of this argument has 32 bits: the kernel ignores the upper half."""
    return Test(argument, value, _WORD)


def clear(argument: int, bits: int) -> Test:
    """None of these bits is set."""
    return Test(argument, 0, bits)


def one_of(argument: int, values: tuple[int, ...]) -> tuple[tuple[Test, ...], ...]:
    """Alternatives: a 32-bit argument is one of these values."""
    return tuple((low(argument, value),) for value in values)
