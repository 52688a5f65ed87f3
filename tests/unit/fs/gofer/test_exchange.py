"""A request and its reply in one call of C: it is the message that Python makes, and of what comes
back only the right reply is taken there. All else goes the way of other replies."""

from __future__ import annotations

import os
import socket
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from gofer.p9.attributes import Attributes
from gofer.p9.codec import Message
from gofer.p9.constants import NOFID, OPENED_DONATED, OPENED_NO
from gofer.p9.extensions import Rcreatex, Rnearx, Rwalkx, Tcreatex, Tnearx
from gofer.p9.messages import Rlerror, Runlinkat, Tclunk, Tunlinkat
from sentry.errors import EEXIST, EIO, Errno
from sentry.fs.gofer import session
from sentry.fs.gofer.directory import CREATION, REMOVAL
from sentry.fs.gofer.requests import Pending
from sentry.fs.gofer.session import Exchangeable
from sentry.platform.exchange import TAG
from sentry.platform.host_io import receive
from tests.unit.fs.gofer.test_session import Ends

BLOCK = Attributes(0o100600, 1, 2, 1, 5, 6, 0, 7, 8, 9, 10, 11, 12, 4096, 0).pack()
CREATED = Rcreatex(OPENED_DONATED, 1, BLOCK)
NEW = (3, b"name", 4, os.O_RDWR | os.O_EXCL, 0o640, 10, 20)
GONE = (3, b"name", 4, 0)

Reply = Callable[[socket.socket, int], object]
"""Answers the request of this tag."""


@pytest.fixture
def ends(kernel: Any) -> Iterator[Ends]:
    made = Ends(kernel.loop)
    yield made
    made.session.close()
    made.server.sock.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may take its time."""
    monkeypatch.setattr(session, "PATIENCE_MS", 60_000)


def says(*replies: Message, tag: int | None = None, fds: int = 0) -> Reply:
    """These, in one piece, with so many descriptors."""

    def send(sock: socket.socket, asked: int) -> None:
        data = b"".join(reply.encode(asked if tag is None else tag) for reply in replies)
        made = [os.open("/dev/null", os.O_RDONLY) for _ in range(fds)]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", made))] if made else []
        sock.sendmsg([data], rights)
        for fd in made:
            os.close(fd)

    return send


def exchanged(
    ends: Ends, kind: Exchangeable, fields: tuple[Any, ...], reply: Reply
) -> tuple[list[tuple[int, Message]], Pending]:
    """What the server was asked, and what came of it, waited for."""
    asked: list[tuple[int, Message]] = []

    def serve() -> None:
        tag, request = ends.server.take()
        asked.append((tag, request))
        reply(ends.server.sock, tag)

    thread = threading.Thread(target=serve)
    thread.start()
    pending = ends.session.exchange(kind, fields)
    thread.join()
    wait(ends, pending)
    return asked, pending


def wait(ends: Ends, *pendings: Pending) -> None:
    """Until their replies are there."""
    for pending in pendings:
        if not pending.done:
            with suppress(Errno):
                ends.session.wait_now(pending)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("kind", "fields", "message", "reply"),
    [
        (CREATION, NEW, Tcreatex(3, NOFID, b"name", 0x82, 1, 0o640, 10, 20), says(CREATED, fds=1)),
        (REMOVAL, GONE, Tunlinkat(3, b"name", 0), says(Runlinkat())),
        (REMOVAL, (2**32 - 2, b"x" * 255, 255, 0x200),
         Tunlinkat(2**32 - 2, b"x" * 255, 0x200), says(Runlinkat())),
    ],
)  # fmt: skip
def test_what_c_sends_is_the_message(
    ends: Ends, kind: Exchangeable, fields: tuple[Any, ...], message: Message, reply: Reply
) -> None:
    asked, pending = exchanged(ends, kind, fields, reply)
    assert asked == [(TAG, message)]
    assert kind.message(*fields) == message
    pending.check()
    assert ends.session.unanswered == 0
    if kind is CREATION:
        fd = pending.take_fd()
        assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
        os.close(fd)


@pytest.mark.usefixtures("patient")
def test_what_was_made_and_why_it_was_not(ends: Ends) -> None:
    def made(reply: Reply) -> bytes | None:
        pending = exchanged(ends, CREATION, NEW, reply)[1]
        assert pending.request is None
        pending.check()
        os.close(pending.take_fd())
        return pending.block

    assert made(says(CREATED, fds=1)) == BLOCK
    with pytest.raises(EEXIST):
        made(says(Rlerror(EEXIST.number)))
    assert made(says(CREATED, fds=1)) == BLOCK


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "reply",
    [
        says(Runlinkat(), tag=TAG - 1),
        says(Runlinkat(), tag=0),
        says(Rwalkx(0, 0, b"", [])),
        says(CREATED, fds=1),
        says(Runlinkat(), Runlinkat()),
        lambda sock, _: sock.sendall(b"\x07\x00\x00\x00\x4d"),
        lambda sock, _: sock.sendall(b"\x08\x00\x00\x00\x4d" + TAG.to_bytes(2, "little") + b"\0"),
        lambda sock, _: sock.sendall(b"\xff\xff\xff\xff" * 3),
    ],
    ids=["tag", "tag-0", "type", "other-type", "twice", "short", "long", "no-frame"],
)
def test_other_replies_end_the_session(ends: Ends, reply: Reply) -> None:
    """As they do where Python reads them. What stays short waits for its rest."""
    before = len(os.listdir("/proc/self/fd"))

    def then_closed(sock: socket.socket, tag: int) -> None:
        reply(sock, tag)
        sock.shutdown(socket.SHUT_WR)

    pending = exchanged(ends, REMOVAL, GONE, then_closed)[1]
    with pytest.raises(EIO):
        pending.check()
        ends.session.call_now(Tclunk(1))
    assert ends.session.dead
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("fds", [0, 2])
def test_a_descriptor_that_is_missing_and_one_too_many(ends: Ends, fds: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pending = exchanged(ends, CREATION, NEW, says(CREATED, fds=fds))[1]
    if fds:
        pending.check()
        os.close(pending.take_fd())
        ends.session.close()
        before -= 1
    else:
        with pytest.raises(EIO):
            pending.check()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("patient")
def test_a_file_without_a_descriptor_is_made_all_the_same(ends: Ends) -> None:
    pending = exchanged(ends, CREATION, NEW, says(Rcreatex(OPENED_NO, 1, BLOCK)))[1]
    assert pending.result() == Rcreatex(OPENED_NO, 1, BLOCK)
    assert pending.take_fd() == -1


@pytest.mark.usefixtures("patient")
def test_what_came_is_kept_while_another_session_receives(ends: Ends) -> None:
    """As that of a file system whose inodes the collector of garbage finds just then does."""
    near, far = socket.socketpair()

    def message(*fields: Any) -> Message:
        far.send(bytes(100))
        receive(near.fileno(), 0)
        return CREATION.message(*fields)

    kind = CREATION._replace(message=message)
    pending = exchanged(ends, kind, NEW, says(Rcreatex(OPENED_NO, 1, BLOCK)))[1]
    assert pending.result() == Rcreatex(OPENED_NO, 1, BLOCK)
    near.close()
    far.close()


def test_a_late_reply_is_slept_for(ends: Ends) -> None:
    pending = ends.session.exchange(REMOVAL, GONE)
    assert not pending.done
    assert ends.session.unanswered == 1
    other = ends.session.exchange(REMOVAL, (4, b"other", 5, 0))
    first, second = ends.server.take(), ends.server.take()
    assert first == (TAG, Tunlinkat(3, b"name", 0))
    assert second[1] == Tunlinkat(4, b"other", 0)
    assert second[0] != TAG
    ends.server.reply(second[0], Rlerror(17))
    ends.server.reply(first[0], Runlinkat())
    wait(ends, pending, other)
    pending.check()
    with pytest.raises(EEXIST):
        other.check()
    assert ends.session.unanswered == 0
    asked, again = exchanged(ends, REMOVAL, GONE, says(Runlinkat()))
    again.check()
    assert asked == [(TAG, Tunlinkat(3, b"name", 0))]


def test_what_else_is_unanswered_gets_its_reply(ends: Ends) -> None:
    clunk = ends.session.send(Tclunk(9))
    pending = ends.session.exchange(REMOVAL, GONE)
    for _ in range(2):
        tag, request = ends.server.take()
        assert tag != TAG
        reply = Rlerror(17) if isinstance(request, Tclunk) else Runlinkat()
        ends.server.reply(tag, reply)
    wait(ends, pending)
    pending.check()
    with pytest.raises(EEXIST):
        clunk.result()


def test_a_server_that_reads_nothing_gets_the_rest_later(ends: Ends) -> None:
    """What the socket does not take stands in line, and is no request of its own."""
    ends.session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    pendings = [ends.session.exchange(REMOVAL, (n, b"x" * 255, 255, 0)) for n in range(64)]
    assert ends.session.crowded
    seen = []
    while len(seen) < 64:
        tag, request = ends.asked()
        assert isinstance(request, Tunlinkat)
        seen.append(request.dirfd)
        ends.server.reply(tag, Runlinkat())
    assert seen == list(range(64))
    wait(ends, *pendings)
    for pending in pendings:
        pending.check()


@pytest.mark.usefixtures("patient")
def test_the_server_is_told_where_it_is_waited_for(ends: Ends) -> None:
    ends.session.version = b"9P2000.L.runsc1"
    exchanged(ends, REMOVAL, GONE, says(Runlinkat()))
    tag, request = ends.server.take()
    assert isinstance(request, Tnearx)
    ends.server.reply(tag, Rnearx())
    ends.session.drain()
    assert ends.session.unanswered == 0
