"""Protocol buffers, as much of them as containerd's and gVisor's messages use.

A message is a struct whose fields are annotated with their numbers; what goes over the wire follows
from the type: str, bytes, bool, int (a varint), another message, lists of these, and dict[str, str]
(map<string, string>). Values that are zero or empty are not written, as proto3 has it; unknown
fields are skipped. Source: protobuf.dev, "Encoding".

The library `protobuf` would do it, too: importing it took 45 ms and 7 MB where this module and all
messages take 6 ms, and a shim is started for each pod and once more to clean up after one. Where a
message is written often, `encoder` makes a function for its type: sentry.watch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from msgspec import Struct

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST = (1 << 64) - 1
DEEPEST = 16
"""Messages in messages: none of containerd's comes near."""


class Signed:
    """Marks an int64 or int32, whose negative numbers are 2**64 less on the wire."""


class Message(Struct):
    """The base of all messages."""


M = TypeVar("M", bound=Message)


class Field(NamedTuple):
    """How one field is written."""

    name: str
    number: int
    kind: type
    """str, bytes, bool, int or a message; dict for a map of texts."""
    repeated: bool = False
    signed: bool = False


_FIELDS: dict[type, tuple[Field, ...]] = {}
"""By message, worked out when it is first used."""


def fields(kind: type[Message]) -> tuple[Field, ...]:
    """The fields of a message that have a number, in the order of those."""
    found = _FIELDS.get(kind)
    if found is None:
        hints = get_type_hints(kind, include_extras=True)
        made = [_field(name, hint) for name, hint in hints.items() if get_origin(hint) is Annotated]
        found = _FIELDS[kind] = tuple(sorted(made, key=lambda field: field.number))
    return found


def _field(name: str, hint: Any) -> Field:
    plain, number, *marks = get_args(hint)
    signed = Signed in marks
    if get_origin(plain) is dict:
        return Field(name, number, dict, repeated=True)
    if get_origin(plain) is list:
        return Field(name, number, get_args(plain)[0], repeated=True, signed=signed)
    options = [each for each in get_args(plain) if each is not type(None)]
    return Field(name, number, options[0] if options else plain, signed=signed)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    out = bytearray()
    for field in fields(type(message)):
        value = getattr(message, field.name)
        if field.kind is dict:
            for key, text in value.items():
                _put(out, field.number, BYTES, _pair(key, text))
        elif not field.repeated:
            _put_value(out, field, value)
        elif field.kind is int:
            if value:
                _put(out, field.number, BYTES, b"".join(_varint(each & MOST) for each in value))
        else:
            for each in value:
                _put(out, field.number, BYTES, _bytes(each))
    return bytes(out)


def _put_value(out: bytearray, field: Field, value: Any) -> None:
    if isinstance(value, Message):
        _put(out, field.number, BYTES, encode(value))
    elif not value:
        return
    elif isinstance(value, int):
        out += _varint(field.number << 3 | VARINT) + _varint(int(value) & MOST)
    else:
        _put(out, field.number, BYTES, _bytes(value))


def _put(out: bytearray, number: int, wire: int, data: bytes) -> None:
    out += _varint(number << 3 | wire) + _varint(len(data)) + data


def _bytes(value: Any) -> bytes:
    if isinstance(value, Message):
        return encode(value)
    return value.encode(errors="replace") if isinstance(value, str) else bytes(value)


def _pair(key: str, text: str) -> bytes:
    out = bytearray()
    _put(out, 1, BYTES, _bytes(key))
    _put(out, 2, BYTES, _bytes(text))
    return bytes(out)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(kind: type[M], data: bytes) -> M:
    """Raises: ValueError if the bytes are no such message."""
    return _decode(kind, data, 0)


def _decode(kind: type[M], data: bytes, depth: int) -> M:
    if depth > DEEPEST:
        raise ValueError("too many messages in one another")
    known = {field.number: field for field in fields(kind)}
    values: dict[str, Any] = {}
    place = 0
    while place < len(data):
        tag, place = _read_varint(data, place)
        wire, number = tag & 7, tag >> 3
        if not 0 < number < 1 << 29:
            raise ValueError(f"field {number} cannot be")
        value, place = _read_value(data, place, wire)
        field = known.get(number)
        if field is not None:
            _keep(values, field, wire, value, depth)
    return kind(**values)


def _read_value(data: bytes, place: int, wire: int) -> tuple[int | bytes, int]:
    if wire == VARINT:
        return _read_varint(data, place)
    if wire == BYTES:
        size, place = _read_varint(data, place)
    elif wire in (FIXED32, FIXED64):
        size = 4 if wire == FIXED32 else 8
    else:
        raise ValueError(f"wire type {wire} is not used")
    end = place + size
    if end > len(data):
        raise ValueError("it ends in the middle of a field")
    return data[place:end], end


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(place, min(place + 10, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & MOST, index + 1
        shift += 7
    raise ValueError("a number without an end")


def _keep(
    values: dict[str, Any], field: Field, wire: int, value: int | bytes, depth: int
) -> None:
    """Take a value of a known field; the last one counts, but of repeated fields all do."""
    if field.kind in (int, bool) and field.repeated and isinstance(value, bytes) and wire == BYTES:
        numbers, place = values.setdefault(field.name, []), 0
        while place < len(value):
            number, place = _read_varint(value, place)
            numbers.append(_number(field, number))
        return
    if (wire == VARINT) != (field.kind in (int, bool)) or wire in (FIXED32, FIXED64):
        raise ValueError(f"{field.name} is of wire type {wire}")
    read = _READ.get(field.kind) or _message
    made = read(field, value, depth)
    if field.kind is dict:
        values.setdefault(field.name, {}).update([made])
    elif field.repeated:
        values.setdefault(field.name, []).append(made)
    else:
        values[field.name] = made


def _number(field: Field, value: int, depth: int = 0) -> int:
    return value - (1 << 64) if field.signed and value >> 63 else value


def _message(field: Field, value: Any, depth: int) -> Message:
    return _decode(field.kind, value, depth + 1)


def _text(field: Field, value: Any, depth: int) -> str:
    text: str = value.decode()  # UnicodeDecodeError is a ValueError
    return text


def _key_and_text(field: Field, value: Any, depth: int) -> tuple[str, str]:
    pair = _decode(_Pair, value, depth + 1)
    return pair.key, pair.text


_READ: dict[type, Callable[[Field, Any, int], Any]] = {
    bool: lambda _field, value, _depth: bool(value),
    bytes: lambda _field, value, _depth: value,
    dict: _key_and_text,
    int: _number,
    str: _text,
}


class _Pair(Message):
    key: Annotated[str, 1] = ""
    text: Annotated[str, 2] = ""
