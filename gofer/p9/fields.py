"""The kinds of field a message can have, and how each is read and written.

A message class names them in its annotations. FIXED kinds have a struct code; VARIABLE ones a
counted prefix and two fragments of code, which `codec` puts into the generated functions.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class ProtocolError(ValueError):
    """Bytes that are no 9P message. The connection they came from cannot be trusted further."""


class Qid(NamedTuple):
    """The server's identity of a file: type, version, and a path unique in the server."""

    type: int
    version: int
    path: int


U8: TypeAlias = int
U16: TypeAlias = int
U32: TypeAlias = int
U64: TypeAlias = int
I64: TypeAlias = int
QidField: TypeAlias = Qid
AttrBlock: TypeAlias = bytes
"""96 bytes, see `gofer.p9.attributes`."""
Str: TypeAlias = bytes
"""A string s[2] of any bytes; 9P says UTF-8, file names in Linux are not."""
Data: TypeAlias = bytes
"""Counted by 32 bits."""
Names: TypeAlias = list[bytes]
Fids: TypeAlias = list[int]
Qids: TypeAlias = list[Qid]
AttrBlocks: TypeAlias = list[bytes]

ATTR_SIZE = 96

FIXED: dict[str, tuple[str, list[str], str]] = {
    # kind: struct code, expressions of the packed values, expression that builds the value
    "U8": ("B", ["{0}"], "{0}"),
    "U16": ("H", ["{0}"], "{0}"),
    "U32": ("I", ["{0}"], "{0}"),
    "U64": ("Q", ["{0}"], "{0}"),
    "I64": ("q", ["{0}"], "{0}"),
    "QidField": ("BIQ", ["{0}[0]", "{0}[1]", "{0}[2]"], "Qid({0}, {1}, {2})"),
    "AttrBlock": (f"{ATTR_SIZE}s", ["{0}"], "{0}"),
}

_BYTES = [
    "if pos + n_{name} > end: raise ProtocolError(SHORT)",
    "message.{name} = buf[pos:pos + n_{name}]",
    "pos += n_{name}",
]

VARIABLE: dict[str, tuple[str, list[str], str, list[str]]] = {
    # kind: code of the count, lines before encoding, the count, lines of decoding
    "Str": ("H", ["b_{name} = {value}"], "len(b_{name})", _BYTES),
    "Data": ("I", ["b_{name} = {value}"], "len(b_{name})", _BYTES),
    "Names": (
        "H",
        ["b_{name} = b''.join([U16.pack(len(item)) + item for item in {value}])"],
        "len(self.{name})",
        [
            "if n_{name} > MAX_WALK: raise ProtocolError('more than 16 names')",
            "items = message.{name} = []",
            "for _ in range(n_{name}):",
            "    if pos + 2 > end: raise ProtocolError(SHORT)",
            "    stop = pos + 2 + (buf[pos] | buf[pos + 1] << 8)",
            "    if stop > end: raise ProtocolError(SHORT)",
            "    items.append(buf[pos + 2:stop])",
            "    pos = stop",
        ],
    ),
    "Fids": (
        "H",
        ["b_{name} = b''.join([U32.pack(item) for item in {value}])"],
        "len(self.{name})",
        [
            "if n_{name} > MAX_SPARES: raise ProtocolError('more than 32 fids')",
            "stop = pos + 4 * n_{name}",
            "if stop > end: raise ProtocolError(SHORT)",
            "message.{name} = [U32.unpack_from(buf, i)[0] for i in range(pos, stop, 4)]",
            "pos = stop",
        ],
    ),
    "Qids": (
        "H",
        ["b_{name} = b''.join([QID.pack(*item) for item in {value}])"],
        "len(self.{name})",
        [
            "if n_{name} > MAX_WALK: raise ProtocolError('more than 16 qids')",
            "if pos + 13 * n_{name} > end: raise ProtocolError(SHORT)",
            "stop = pos + 13 * n_{name}",
            "message.{name} = [Qid(*QID.unpack_from(buf, i)) for i in range(pos, stop, 13)]",
            "pos = stop",
        ],
    ),
    "AttrBlocks": (
        "H",
        ["b_{name} = b''.join({value})"],
        "len(self.{name})",
        [
            "if n_{name} > MAX_SPARES: raise ProtocolError('more than 32 attribute blocks')",
            f"stop = pos + {ATTR_SIZE} * n_{{name}}",
            "if stop > end: raise ProtocolError(SHORT)",
            f"message.{{name}} = [buf[i:i + {ATTR_SIZE}] for i in range(pos, stop, {ATTR_SIZE})]",
            "pos = stop",
        ],
    ),
}
