"""ttrpc: frames of requests and responses over a stream, and what an error is called.

A frame is ten bytes (length, stream, type, flags; big-endian) and a message. A client's streams are
odd and increase. Sans-io. Source: ttrpc's PROTOCOL.md, channel.go and server.go.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from runsc.shim.messages import Response, Status
from sentry.protobuf import Message, encode

HEAD = struct.Struct(">IIBB")
MOST = 4 << 20
"""Bytes of a message; a longer one is read past, and answered with an error."""
REQUEST, RESPONSE, DATA = 1, 2, 3


class Code(IntEnum):
    """google.rpc.Code, of those that are said here: containerd tells errors apart by them."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Refused(Exception):
    """A request is answered with this error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Frame(NamedTuple):
    """A frame that has come in."""

    stream: int
    kind: int
    data: bytes
    length: int = 0
    """Of one that is too long, whose data is left out; else 0."""


class Reader:
    """Cuts what comes in into frames."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip = 0
        """So much of a frame that is too long is still to come."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now; one that is too long as soon as its head is there."""
        dropped = min(self._skip, len(data))
        self._skip -= dropped
        self._data += memoryview(data)[dropped:]
        found: list[Frame] = []
        place = 0
        while len(self._data) - place >= HEAD.size:
            length, stream, kind, _ = HEAD.unpack_from(self._data, place)
            end = place + HEAD.size + length
            if length > MOST:
                found.append(Frame(stream, kind, b"", length))
                self._skip = max(0, end - len(self._data))
                place = min(end, len(self._data))
                continue
            if end > len(self._data):
                break
            found.append(Frame(stream, kind, bytes(self._data[place + HEAD.size : end])))
            place = end
        del self._data[:place]
        return found


def frame(stream: int, kind: int, data: bytes) -> bytes:
    """A frame to send."""
    return HEAD.pack(len(data), stream, kind, 0) + data


def answer(stream: int, message: Message) -> bytes:
    """The response to a request that was carried out."""
    data = encode(Response(Status(), encode(message)))
    if len(data) > MOST:
        return error(stream, Code.RESOURCE_EXHAUSTED, "the answer is longer than a message may be")
    return frame(stream, RESPONSE, data)


def error(stream: int, code: int, text: str) -> bytes:
    """The response to one that was not."""
    return frame(stream, RESPONSE, encode(Response(Status(int(code), text[:MOST // 4]))))
