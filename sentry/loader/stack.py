"""The first stack of a program: strings above, then the tables that point to them.

    top - 8      zero
                 file name (AT_EXECFN), environment, arguments
                 up to 8 KiB of nothing, at random
                 platform name, 16 random bytes
                 auxiliary vector
                 envp, argv, argc                 <- stack pointer, a multiple of 16
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import accumulate

from msgspec import Struct

from sentry.abi.limits import ARG_MAX
from sentry.errors import E2BIG
from sentry.platform.constants import PAGE_SIZE
from sentry.wait.steps import Steps, Stepwise

MAX_ARG_STRLEN = 131072
"""Bytes of one string with its NUL."""
STACK_LIMIT_DEFAULT = 8 << 20
PLATFORM = b"x86_64"
PIECE = 1024
"""Strings of 100,000 and more that are placed in a step."""
RANDOM_GAP = 8192
"""Of the stack there is always one page: get_arg_page() grows it with RLIMIT_STACK in mind."""


class Strings(Struct, frozen=True):
    """What the program is given to read."""

    file_name: bytes
    argv: Sequence[bytes]
    envp: Sequence[bytes]

    @property
    def size(self) -> int:
        """Bytes with all NULs and the word at the top."""
        return _total(self.argv) + _total(self.envp) + len(self.file_name) + 1 + 8


def _total(texts: Sequence[bytes]) -> int:
    """With all NULs."""
    return sum(map(len, texts)) + len(texts)


@Stepwise
def check_size(strings: Strings, stack_limit: int) -> Steps[None]:
    """bprm_stack_limits(), copy_strings(): strings and pointers within a quarter of RLIMIT_STACK,
    at most 6 MiB, but never less than 128 KiB. Raises: E2BIG.
    """
    limit = max(min(STACK_LIMIT_DEFAULT // 4 * 3, stack_limit // 4), ARG_MAX)
    pointers = (max(len(strings.argv), 1) + len(strings.envp)) * 8
    size = 8
    for group in ((strings.file_name,), strings.argv, strings.envp):
        for first in range(0, len(group), PIECE):
            sizes = [*map(len, group[first : first + PIECE])]
            if max(sizes) >= MAX_ARG_STRLEN:
                raise E2BIG("one string")
            size += sum(sizes) + len(sizes)
            yield
    if pointers >= limit or size - 8 > limit - pointers:
        raise E2BIG(f"{size} bytes of strings, {pointers} of pointers")
    if size > stack_limit and size > PAGE_SIZE:
        raise E2BIG("the stack may not grow so far")


class Layout(Struct, frozen=True):
    """Where everything is, as /proc/self/stat and /proc/self/cmdline want it, and the bytes."""

    stack_pointer: int
    data: bytes
    """From the stack pointer to the top."""
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int


@Stepwise
def build(
    top: int,
    strings: Strings,
    random_bytes: bytes,
    gap: int,
    auxv: Callable[[tuple[int, int, int]], bytes],
) -> Steps[Layout]:
    """Lay the stack out below `top`. `gap` is a random number below 8192.

    `auxv` packs the auxiliary vector, given where random bytes, file name and platform name are.
    """
    at = top - 8 - len(strings.file_name) - 1
    file_name = at
    env_end = at
    at -= _total(strings.envp)
    env_start = arg_end = at
    at -= _total(strings.argv)
    arg_start = at
    yield
    high = bytearray()

    platform = ((at - gap) & ~15) - len(PLATFORM) - 1
    random = platform - 16
    table = bytearray(struct.pack("<Q", len(strings.argv)))
    at = arg_start
    for group in (strings.argv, strings.envp):
        for first in range(0, len(group), PIECE):
            texts = group[first : first + PIECE]
            *starts, at = accumulate(map((1).__add__, map(len, texts)), initial=at)
            table += struct.pack(f"<{len(starts)}Q", *starts)
            high += b"\0".join(texts) + b"\0"
            yield
        table += bytes(8)
    high += strings.file_name + bytes(9)
    table += auxv((random, file_name, platform))
    stack_pointer = ((random & ~15) - len(table)) & ~15

    data = bytearray(top - stack_pointer)
    data[: len(table)] = table
    for addr, piece in ((random, random_bytes + PLATFORM), (arg_start, high)):
        data[addr - stack_pointer : addr - stack_pointer + len(piece)] = piece
    yield
    return Layout(stack_pointer, bytes(data), arg_start, arg_end, env_start, env_end)
