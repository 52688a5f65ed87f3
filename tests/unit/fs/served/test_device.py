"""A device that is served: its open files, while somebody waits in them."""

from __future__ import annotations

import socket

from gofer.p9.codec import Message, decode
from gofer.p9.extensions import Tpollx
from gofer.p9.messages import Rread, Rwrite, Tclunk, Tread, Twrite
from sentry.abi.fcntl import O_RDWR
from sentry.fs.served.device import DeviceFile, ServedDevice
from sentry.fs.served.session import ServedSession
from sentry.vfs.interface import Inode, Owner
from tests.world import Program, World

PATIENCE_NS = 10**12


def opened(program: Program, sock: socket.socket) -> int:
    """A descriptor of a device whose server is at the other end."""
    world = program.world
    session = ServedSession(sock, world.loop, PATIENCE_NS)
    world.stack.callback(session.close)
    inode = Inode(world.vfs.anon_fs(), world.vfs.new_ino(), 0o20666, Owner(0, 0))
    place = world.vfs.anon_location(inode, b"device")
    device = ServedDevice(session, session.new_fid())
    file = DeviceFile(place, O_RDWR, device, session.new_fid())
    return program.task.files.install(file, 1024)


def asked(server: socket.socket) -> list[tuple[int, Message]]:
    """What has come, with its tags."""
    data = server.recv(1 << 16, socket.MSG_DONTWAIT)
    found, at = [], 0
    while at < len(data):
        end = at + int.from_bytes(data[at : at + 4], "little")
        found.append(decode(data, at, end))
        at = end
    return found


def closed_while(call: str, answer: Message) -> tuple[int, list[type[Message]]]:
    """What the call gives whose descriptor another thread closes, and what was asked till then."""
    ours, theirs = socket.socketpair()
    with World() as world, theirs:
        program = world.program()
        other = program.thread()
        fd = opened(program, ours)
        waiting = program.begin(call, fd, program.buffer(4), 4)
        other.ok("close", fd)
        world.settle()
        requests = asked(theirs)
        theirs.sendall(answer.encode(requests[-1][0]))
        result = waiting.wait()
        world.settle()
        return result, [type(each) for _, each in requests + asked(theirs)]


def test_file_that_is_closed_meanwhile_is_read_to_the_end() -> None:
    assert closed_while("read", Rread(b"data")) == (4, [Tpollx, Tread, Tclunk])


def test_file_that_is_closed_meanwhile_is_written_to_the_end() -> None:
    assert closed_while("write", Rwrite(4)) == (4, [Tpollx, Twrite, Tclunk])
