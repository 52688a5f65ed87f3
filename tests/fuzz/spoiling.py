"""Between a Gofer and the Sentry: replies are changed as an example says, and descriptors too."""

from __future__ import annotations

import array
import os
import select
import socket
from contextlib import suppress
from typing import Any

from gofer.p9 import constants as c
from gofer.p9.codec import MESSAGES, Message
from gofer.p9.fields import Qid
from gofer.p9.frames import FrameReader
from tests.fuzz.inside import Step

PATIENCE_MS = 50
REPLIES = [number for number in MESSAGES if number % 2]


def in_the_middle(
    sentry: socket.socket, gofer: socket.socket, spoilt: dict[int, list[Step]]
) -> None:
    """Carry requests and replies; the n-th reply is changed as `spoilt` says."""
    reader, number = FrameReader(c.MSIZE_MAX), 0
    fds: list[int] = []
    poll = select.poll()
    for end in (sentry, gofer):
        poll.register(end, select.POLLIN)
    with suppress(OSError):
        while ready := poll.poll(PATIENCE_MS if number > min(spoilt, default=1 << 30) else None):
            if any(fd == sentry.fileno() for fd, _ in ready):
                if not (data := sentry.recv(1 << 16)):
                    return
                gofer.sendall(data)
                continue
            data, came, _, _ = socket.recv_fds(gofer, 1 << 16, 64)
            if not data:
                return
            fds += came
            for tag, reply in reader.feed(data):
                frame = reply.encode(tag)
                for change in spoilt.get(number, ()):
                    frame = spoil(change, reply, tag, frame, fds)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                sent = sentry.sendmsg([frame], rights if fds else [])
                sentry.sendall(frame[sent:])
                while fds:
                    os.close(fds.pop())
                number += 1


def spoil(change: Step, reply: Message, tag: int, frame: bytes, fds: list[int]) -> bytes:
    """The bytes that come in place of a reply; `fds` is changed."""
    match change:
        case ("flip", at, mask):
            at %= len(frame) or 1
            return frame[:at] + bytes(byte ^ mask for byte in frame[at : at + 1]) + frame[at + 1 :]
        case ("field", index, number, data):
            names = list(reply.fields)
            if names:
                name = names[index % len(names)]
                setattr(reply, name, value(reply.fields[name], getattr(reply, name), number, data))
                return reply.encode(tag)
        case ("type", index, data):
            size = 7 + len(data)
            kind = REPLIES[index % len(REPLIES)]
            return size.to_bytes(4, "little") + bytes([kind]) + tag.to_bytes(2, "little") + data
        case ("tag", other):
            return frame[:5] + other.to_bytes(2, "little") + frame[7:]
        case ("error", number):
            return b"\x0b\0\0\0\x07" + tag.to_bytes(2, "little") + number.to_bytes(4, "little")
        case ("cut", size):
            return frame[: size % (len(frame) or 1)]
        case ("more", data):
            return frame + data
        case ("fd", kind):
            other = descriptor(kind)
            if fds:
                os.dup2(other, fds[0])
                os.close(other)
            else:
                fds.append(other)
        case ("no fd",):
            while fds:
                os.close(fds.pop())
    return frame


def value(kind: str, old: Any, number: int, data: bytes) -> Any:
    """Another one for a field of this kind."""
    match kind:
        case "U8" | "U16" | "U32" | "U64":
            return number & (1 << int(kind[1:])) - 1
        case "I64":
            return number - (1 << 63)
        case "QidField":
            return Qid(number & 0xFF, number & 0xFFFFFFFF, number)
        case "Qids":
            return [*old, Qid(number & 0xFF, 0, number)][-(number % 17) :]
        case "Names":
            return [*old, data][-(number % 17) :]
        case "AttrBlock":
            return patched(old, number, data)
        case "AttrBlocks":
            return [patched(block, number, data) for block in old][number % 3 :]
    return data


def patched(block: bytes, number: int, data: bytes) -> bytes:
    at = number % len(block) & ~3
    return (block[:at] + data)[: len(block)].ljust(len(block), b"\xff")


def descriptor(kind: str) -> int:
    match kind:
        case "pipe":
            ours, theirs = os.pipe()
            os.close(theirs)
            return ours
        case "open pipe":
            return os.pipe()[0]
        case "empty memory" | "memory":
            made = os.memfd_create("other")
            os.pwrite(made, b"\1" * 8 if kind == "memory" else b"", 0)
            return made
        case "nonblocking socket":
            ours, theirs = (sock.detach() for sock in socket.socketpair())
            os.write(theirs, b"\1" * 8)
            os.set_blocking(ours, False)
            return ours
        case "folder":
            return os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        case "path":
            return os.open("/", os.O_PATH)
        case "socket":
            return socket.socketpair()[0].detach()
    return os.open(kind, os.O_RDWR)
