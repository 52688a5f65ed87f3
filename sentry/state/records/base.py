"""What all records have: bounds of numbers, strings and lists."""

from __future__ import annotations

from typing import Annotated

import msgspec

U64 = (1 << 64) - 1
MAX_OBJECTS = 1 << 20
"""Of one kind."""
MAX_BYTES = 1 << 26
"""In one string of bytes."""
MOST = (1 << 62) - 1
Amount = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
"""Bytes, pages, ns, numbers of something."""
Position = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""In a file, or the size of one."""
Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""A user, a group, a device, flags."""
Pid = Annotated[int, msgspec.Meta(ge=1, le=(1 << 22) - 1)]
Signal = Annotated[int, msgspec.Meta(ge=0, le=64)]
Word = Annotated[int, msgspec.Meta(ge=0)]
"""64 bits: an address, a mask, a register. That it is no more than that `Record` sees to."""
Ref = Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECTS)]
Name = Annotated[bytes, msgspec.Meta(max_length=255)]
HostName = Annotated[bytes, msgspec.Meta(max_length=64)]
Path = Annotated[bytes, msgspec.Meta(max_length=1 << 16)]
Argument = Annotated[bytes, msgspec.Meta(max_length=1 << 17)]
"""MAX_ARG_STRLEN: execve(2)."""
Data = Annotated[bytes, msgspec.Meta(max_length=MAX_BYTES)]
Words = Annotated[str, msgspec.Meta(max_length=4096)]
Many = msgspec.Meta(max_length=MAX_OBJECTS)


def time_ns(value: int) -> int:
    """A time that a program has set, as an `Amount`: it may lie behind the end of every clock, or
    before its beginning. 0 is none."""
    return min(max(value, bool(value)), MOST)


def _check_64_bits(name: str, number: int) -> None:
    if not -(1 << 63) <= number <= U64:
        raise ValueError(f"{name} has more than 64 bits")


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all of them."""

    def __post_init__(self) -> None:
        """No number has more than 64 bits. Raises: ValueError."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is int:
                _check_64_bits(name, value)
            elif type(value) is tuple:
                for each in value:
                    if type(each) is int:
                        _check_64_bits(name, each)
