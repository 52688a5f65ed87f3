"""`encoder`: the function that writes messages of one type, made once.

It is the flat text of what `sentry.protobuf.encode` does for a field after the other, which takes
four times as long: a sandbox that is watched writes one for each system call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from sentry.protobuf import BYTES, MOST, VARINT, Field, Message, fields

_SHORT = tuple(bytes([number]) for number in range(128))
"""Numbers of one byte."""
_PAIRS = tuple(bytes([low | 0x80, high | 0x80]) for high in range(128) for low in range(128))
"""Two groups with others behind them: a time has nine."""


def varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first. The high part of times, addresses and
    negative numbers is often the same."""
    if value < 128:
        return _SHORT[value]
    if value > 0xFFFFFFF:
        return _PAIRS[value & 0x3FFF] + _PAIRS[value >> 14 & 0x3FFF] + _rest(value >> 28)
    return _rest(value)


@lru_cache(4096)
def _rest(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + _SHORT[value]


@cache
def encoder(kind: type[Message]) -> Callable[[Any], bytes]:
    """What `encode` gives for messages of this type, whose texts are UTF-8."""
    scope: dict[str, Any] = {"varint": varint, "short": _SHORT}
    lines = ["def encode(message):", "    out = b''"]
    for field in fields(kind):
        lines += _field(field, scope)
    lines.append("    return out")
    exec("\n".join(lines), scope)
    made: Callable[[Any], bytes] = scope["encode"]
    return made


def _field(field: Field, scope: dict[str, Any]) -> list[str]:
    tag = varint(field.number << 3 | (VARINT if field.kind in (int, bool) else BYTES))
    if issubclass(field.kind, Message):
        scope[f"encode_{field.name}"] = encoder(field.kind)
    data = f"encode_{field.name}(value)"
    if field.kind in (str, bytes):
        data = "value" if field.kind is bytes else "value.encode()"
    put = [f"data = {data}", "size = len(data)",
           f"out += {tag!r} + (short[size] if size < 128 else varint(size)) + data"]  # fmt: skip
    if field.repeated:
        assert field.kind is not int, "none of ours has a list of numbers"
        return [f"    for value in message.{field.name}:", *_indented(put, 8)]
    lines = [f"    value = message.{field.name}"]
    if issubclass(field.kind, Message):
        return [*lines, "    if value is not None:", *_indented(put, 8)]
    if field.kind in (int, bool):
        put = [
            f"out += {tag!r} + (short[value] if 0 < value < 128 else varint(value & {MOST:#x}))"
        ]
    return [*lines, "    if value:", *_indented(put, 8)]


def _indented(lines: list[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]
