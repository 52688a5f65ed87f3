"""Tags, replies and donated descriptors, without a socket."""

from __future__ import annotations

import errno
import os

import pytest

from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.extensions import Rsparex, Rwalkx, Tsparex, Twalkx
from gofer.p9.fields import ATTR_SIZE
from gofer.p9.messages import Rclunk, Rlerror, Rread, Tclunk, Tgetattr, Tread, Tversion
from sentry.errors import EIO, ENFILE, ENOENT
from sentry.fs.gofer.requests import MAX_TAGS, Pending, Requests


def tag_of(frame: bytes) -> int:
    return frame[5] | frame[6] << 8


def submit(requests: Requests, request: Message) -> tuple[Pending, bytes]:
    """The only one in line."""
    return requests.submit(request), requests.next()


def some_fd() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


DONATED = Rwalkx(0, c.OPENED_DONATED, b"", [])


def test_replies_in_any_order_find_their_requests() -> None:
    requests = Requests()
    first, a = submit(requests, Tread(1, 0, 10))
    second, b = submit(requests, Tread(2, 0, 10))
    requests.receive(Rread(b"two").encode(tag_of(b)))
    assert second.done and not first.done
    requests.receive(Rread(b"one").encode(tag_of(a)))
    assert first.result() == Rread(b"one")
    assert second.result() == Rread(b"two")
    assert len(requests) == 0


def test_what_is_unanswered_is_counted_until_its_reply_or_the_end() -> None:
    requests = Requests()
    first, _ = submit(requests, Tread(1, 0, 10))
    requests.submit(Tread(2, 0, 10))
    requests.sent(Tread(3, 0, 10))
    assert requests.unanswered == len(requests) == 3
    first.abandon()
    assert requests.unanswered == 3
    requests.receive(Rread(b"one").encode(0))
    assert requests.unanswered == len(requests) == 2
    seen: list[int] = []
    requests.submit(Tread(4, 0, 10)).heard = lambda: seen.append(requests.unanswered)
    requests.fail()
    assert (requests.unanswered, len(requests), seen) == (0, 0, [0])
    with pytest.raises(EIO):
        requests.submit(Tread(5, 0, 10))
    assert not requests


def test_a_tag_is_reserved_until_its_reply_whoever_waits() -> None:
    requests = Requests()
    pending, frame = submit(requests, Tread(1, 0, 10))
    pending.abandon()
    others = {tag_of(submit(requests, Tread(1, 0, 1))[1]) for _ in range(50)}
    assert tag_of(frame) not in others
    requests.receive(Rread(b"late").encode(tag_of(frame)))
    assert tag_of(submit(requests, Tread(1, 0, 1))[1]) == tag_of(frame)


def test_more_than_there_are_tags_stand_in_line() -> None:
    requests = Requests()
    waiting = [requests.submit(Tread(i, 0, 1)) for i in range(MAX_TAGS + 2)]
    frames = [requests.next() for _ in range(MAX_TAGS)]
    assert all(frames) and not requests.next()
    requests.receive(Rread(b"x").encode(tag_of(frames[7])))
    assert (waiting[7].done, tag_of(requests.next())) == (True, tag_of(frames[7]))
    assert (len(requests), requests.next()) == (MAX_TAGS + 1, b"")
    requests.fail()
    assert all(pending.done for pending in waiting)


def test_version_uses_no_tag() -> None:
    assert tag_of(submit(Requests(), Tversion(8192, c.VERSION))[1]) == c.NOTAG


def test_an_error_reply_is_raised_as_its_errno() -> None:
    requests = Requests()
    pending, frame = submit(requests, Tclunk(1))
    requests.receive(Rlerror(2).encode(tag_of(frame)))
    with pytest.raises(ENOENT):
        pending.result()
    pending, frame = submit(requests, Tclunk(1))
    requests.receive(Rlerror(99999).encode(tag_of(frame)))
    with pytest.raises(EIO):
        pending.result()


def test_descriptors_go_to_the_replies_that_announce_them() -> None:
    requests = Requests()
    sent = [submit(requests, Twalkx(0, c.NOFID, 0, 1, [b"x"])) for _ in range(3)]
    fds = [some_fd(), some_fd()]
    stream = (
        DONATED.encode(tag_of(sent[0][1]))
        + Rwalkx(2, 0, b"", []).encode(tag_of(sent[1][1]))
        + DONATED.encode(tag_of(sent[2][1]))
    )
    requests.receive(stream[:20], fds[:1])
    requests.receive(stream[20:], fds[1:])
    assert [pending.take_fd() for pending, _ in sent] == [fds[0], -1, fds[1]]
    for fd in fds:
        os.close(fd)


def test_a_descriptor_that_is_lost_on_the_way_is_the_matter_of_its_request_alone() -> None:
    requests = Requests()
    sent = [submit(requests, Twalkx(0, c.NOFID, 0, 1, [b"x"])) for _ in range(2)]
    fd = some_fd()
    requests.receive(DONATED.encode(tag_of(sent[0][1])), [-1])
    requests.receive(DONATED.encode(tag_of(sent[1][1])), [fd])
    assert [(pending.lost, pending.take_fd()) for pending, _ in sent] == [(True, -1), (False, fd)]
    assert not requests.dead
    os.close(fd)


def test_descriptors_of_one_reply_may_be_lost_from_one_on() -> None:
    requests = Requests()
    sent = [submit(requests, Tsparex(0, [1, 2, 3])) for _ in range(2)]
    fds = [some_fd() for _ in range(4)]
    spares = Rsparex([bytes(ATTR_SIZE)] * 3, 0, 0)
    requests.receive(spares.encode(tag_of(sent[0][1])), [fds[0], -1])
    requests.receive(spares.encode(tag_of(sent[1][1])), fds[1:])
    assert [pending.take_fds() for pending, _ in sent] == [(fds[0], -1, -1), tuple(fds[1:])]
    assert not requests.dead
    for fd in fds:
        os.close(fd)


def test_fewer_descriptors_than_announced_end_the_session_and_are_closed() -> None:
    requests = Requests()
    pending, frame = submit(requests, Tsparex(0, [1, 2]))
    fd = some_fd()
    requests.receive(Rsparex([bytes(ATTR_SIZE)] * 2, 0, 0).encode(tag_of(frame)), [fd])
    assert requests.dead and pending.take_fds() == ()
    assert not is_open(fd)


def test_what_the_gofer_has_no_descriptor_for_is_no_limit_of_the_program() -> None:
    requests = Requests()
    pending, frame = submit(requests, Tclunk(1))
    requests.receive(Rlerror(errno.EMFILE).encode(tag_of(frame)))
    with pytest.raises(ENFILE):
        pending.result()


def test_a_descriptor_nobody_waits_for_is_closed_and_its_effect_undone() -> None:
    requests = Requests()
    undone: list[Message] = []
    pending, frame = submit(requests, Twalkx(0, 5, 0, 1, [b"x"]))
    pending.abandon(undone.append)
    fd = some_fd()
    requests.receive(DONATED.encode(tag_of(frame)), [fd])
    assert not is_open(fd)
    assert undone == [DONATED]


def reply_to_nobody() -> bytes:
    return Rclunk().encode(77)


def a_request() -> bytes:
    return Tgetattr(0, 0).encode(0)


def another_kind() -> bytes:
    return Rclunk().encode(0)


def no_descriptor() -> bytes:
    return DONATED.encode(0)


def garbage() -> bytes:
    return b"\xff" * 32


def the_end() -> bytes:
    return b""


@pytest.mark.parametrize(
    "make", [reply_to_nobody, a_request, another_kind, no_descriptor, garbage, the_end]
)
def test_a_server_that_does_not_keep_to_the_protocol_ends_the_session(make: object) -> None:
    assert callable(make)
    requests = Requests()
    woken: list[int] = []
    waiting = [submit(requests, Twalkx(0, c.NOFID, 0, 1, [b"x"]))[0] for _ in range(3)]
    for pending in waiting:
        pending.when_done(lambda: woken.append(1))
    fd = some_fd() if make is not no_descriptor else -1
    requests.receive(make(), [fd] if fd >= 0 else [])
    assert requests.dead
    assert len(woken) == 3
    for pending in waiting:
        with pytest.raises(EIO):
            pending.result()
    with pytest.raises(EIO):
        submit(requests, Tclunk(1))
    assert not is_open(fd)
