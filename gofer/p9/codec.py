"""Declarative messages: a class with annotated fields becomes an encoder and a decoder.

    @message(110)
    class Twalk(Message):
        fid: U32
        newfid: U32
        names: Names

The annotations are names of the table in `fields`. Runs of fields of fixed size share one
precompiled `struct.Struct`; the functions are generated as source and compiled when a message type
is first used, so that importing the package stays cheap for the command line.

Every length that arrives is checked against the end of its frame: a decoder raises ProtocolError
and nothing else, whatever the bytes are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar, dataclass_transform

from gofer.p9.constants import HEADER_SIZE, MAX_SPARES, MAX_WALK
from gofer.p9.fields import FIXED, VARIABLE, ProtocolError, Qid

_HEADER = "<IBH"


class _Kind(type):
    """Makes a slot of each field."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _Kind:
        if "__slots__" not in body:
            fields = body.pop("__annotations__", {})
            body |= {"__slots__": tuple(fields), "fields": fields}
        return super().__new__(cls, name, bases, body)


class Message(metaclass=_Kind):
    """A 9P message without its tag. Subclasses are numbered by `message`."""

    __slots__ = ()
    type: ClassVar[int]
    fields: ClassVar[dict[str, str]]
    """Field name to the name of its kind, in wire order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        compile_message(type(self))
        self.__init__(*args, **kwargs)  # type: ignore[misc]

    def encode(self, tag: int) -> bytes:
        """The whole frame. Raises ProtocolError if a field does not fit its place."""
        compile_message(type(self))
        return self.encode(tag)

    @classmethod
    def decode(cls, buf: bytes, pos: int, end: int) -> Message:
        """The message whose body is buf[pos:end]. Raises ProtocolError."""
        compile_message(cls)
        return cls.decode(buf, pos, end)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, name) == getattr(other, name) for name in self.fields
        )

    def __hash__(self) -> int:
        return hash(tuple(repr(getattr(self, name)) for name in self.fields))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields)
        return f"{type(self).__name__}({values})"


MESSAGES: dict[int, type[Message]] = {}
"""Every message by its type number."""

_T = TypeVar("_T", bound=Message)


@dataclass_transform(eq_default=True)
def message(number: int) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: this is 9P message `number`, its annotations are its fields."""

    def register(cls: type[_T]) -> type[_T]:
        assert number not in MESSAGES, f"message {number} is declared twice"
        cls.type = number
        MESSAGES[number] = cls
        return cls

    return register


def decode(buf: bytes, pos: int, end: int) -> tuple[int, Message]:
    """Tag and message of the frame buf[pos:end]; `end` was taken from its size field."""
    if end - pos < HEADER_SIZE:
        raise ProtocolError("frame shorter than its header")
    number = buf[pos + 4]
    cls = MESSAGES.get(number)
    if cls is None:
        raise ProtocolError(f"unknown message type {number}")
    return buf[pos + 5] | buf[pos + 6] << 8, cls.decode(buf, pos + HEADER_SIZE, end)


def compile_message(cls: type[Message]) -> None:
    """Give `cls` its own __init__, encode and decode."""
    scope: dict[str, Any] = {
        "ProtocolError": ProtocolError,
        "Qid": Qid,
        "StructError": struct.error,
        "MAX_SPARES": MAX_SPARES,
        "MAX_WALK": MAX_WALK,
        "TYPE": cls.type,
        "self_class": cls,
        "U16": struct.Struct("<H"),
        "U32": struct.Struct("<I"),
        "QID": struct.Struct("<BIQ"),
        "new": cls.__new__,
    }
    parts = [_init_source(cls), _encode_source(cls, scope), _decode_source(cls, scope)]
    exec("\n".join(parts), scope)  # compile(): 124 classes of syntax, 0.25 MiB
    cls.__init__ = scope["__init__"]  # type: ignore[method-assign]
    cls.encode = scope["encode"]  # type: ignore[method-assign]
    cls.decode = staticmethod(scope["decode"])  # type: ignore[method-assign]


def compile_all(kinds: Iterable[type[Message]] = MESSAGES.values()) -> None:
    """Compile these messages now (it takes a quarter of a millisecond each)."""
    for cls in kinds:
        if "decode" not in cls.__dict__:
            compile_message(cls)


def _init_source(cls: type[Message]) -> str:
    names = list(cls.fields)
    body = [f"    self.{name} = {name}" for name in names] or ["    pass"]
    return "\n".join([f"def __init__(self{''.join(', ' + n for n in names)}):", *body])


def _encode_source(cls: type[Message], scope: dict[str, Any]) -> str:
    """Runs of fixed fields and the length of the field after them become one pack call."""
    prepare: list[str] = []
    chunks: list[str] = []
    sizes: list[str] = []
    fmt, args = _HEADER, ["size", "TYPE", "tag"]

    def finish() -> None:
        nonlocal fmt, args
        if not args:
            return
        packer = struct.Struct(fmt)
        name = f"pack{len(scope)}"
        scope[name] = packer.pack
        sizes.append(str(packer.size))
        chunks.append(f"{name}({', '.join(args)})")
        fmt, args = "<", []

    for name, kind in cls.fields.items():
        if kind in FIXED:
            code, pack, _ = FIXED[kind]
            fmt += code
            args += [part.format(f"self.{name}") for part in pack]
            continue
        count_code, prepared, length = VARIABLE[kind][:3]
        prepare += [f"        {line.format(value=f'self.{name}', name=name)}" for line in prepared]
        fmt += count_code
        args.append(length.format(name=name))
        finish()
        chunks.append(f"b_{name}")
        sizes.append(f"len(b_{name})")
    finish()
    lines = ["def encode(self, tag):", "    try:", *prepare, f"        size = {' + '.join(sizes)}"]
    if len(chunks) == 1:
        lines.append(f"        return {chunks[0]}")
    else:
        lines.append(f"        return b''.join(({', '.join(chunks)},))")
    lines.append("    except StructError as error:")
    lines.append("        raise ProtocolError(f'{type(self).__name__}: {error}') from None")
    return "\n".join(lines)


def _decode_source(cls: type[Message], scope: dict[str, Any]) -> str:
    """The mirror of the encoder; every step compares the position with the frame's end first."""
    lines: list[str] = []
    fmt = "<"
    targets: list[str] = []
    after: list[str] = []

    def finish() -> None:
        nonlocal fmt, targets, after
        if not targets:
            return
        reader = struct.Struct(fmt)
        name = f"unpack{len(scope)}"
        scope[name] = reader.unpack_from
        lines.append(f"    if pos + {reader.size} > end: raise ProtocolError(SHORT)")
        lines.append(f"    {', '.join(targets)}, = {name}(buf, pos)")
        lines.append(f"    pos += {reader.size}")
        lines.extend(after)
        fmt, targets, after = "<", [], []

    for name, kind in cls.fields.items():
        if kind in FIXED:
            code, pack, build = FIXED[kind]
            fmt += code
            parts = [f"v_{name}_{i}" for i in range(len(pack))]
            targets += parts
            after.append(f"    message.{name} = {build.format(*parts)}")
            continue
        count_code, read = VARIABLE[kind][0], VARIABLE[kind][3]
        fmt += count_code
        targets.append(f"n_{name}")
        finish()
        lines += [f"    {line.format(name=name)}" for line in read]
    finish()
    scope["SHORT"] = f"{cls.__name__} is cut short"
    scope["LONG"] = f"{cls.__name__} has bytes after its last field"
    head = ["def decode(buf, pos, end):", "    message = new(self_class)"]
    return "\n".join(
        [*head, *lines, "    if pos != end: raise ProtocolError(LONG)", "    return message"]
    )
