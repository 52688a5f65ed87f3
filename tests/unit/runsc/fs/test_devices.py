"""A device behind 9P: who is told of changes, whatever the threads of its program do."""

from __future__ import annotations

import select
from typing import Any

import pytest

from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.extensions import Rpollx, Rwalkx, Tpollx, Twalkx
from gofer.p9.messages import Tattach, Tversion
from runsc.fs import Device, OpenDevice
from runsc.fs.devices import DeviceService


class Opened(OpenDevice):
    """What others do is done while it says what is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0
        self.meanwhile: list[Any] = []

    def poll(self) -> int:
        events = self.events
        if self.meanwhile:
            self.meanwhile.pop(0)()
        return events


class Client:
    """A session with one open file, fid 1."""

    def __init__(self) -> None:
        self.opened = opened = Opened()

        class Served(Device):
            def open(self, flags: int) -> OpenDevice:
                return opened

        self.service = DeviceService(Served())
        self.sent: list[tuple[int, Message]] = []
        self.service.send = lambda tag, reply: self.sent.append((tag, reply))
        self.ask(Tversion(1 << 20, c.VERSION_EXTENDED))
        self.ask(Tattach(0, c.NOFID, b"", b"device", c.NONUNAME))
        assert isinstance(self.ask(Twalkx(0, 1, 0, 0, [])), Rwalkx)

    def ask(self, message: Message, tag: int = 1) -> Any:
        coro = self.service.answer(tag, message)
        with pytest.raises(StopIteration) as end:
            coro.send(None)
        return end.value.value


@pytest.fixture
def client() -> Client:
    return Client()


def test_change_while_one_looks_is_told(client: Client) -> None:
    def changes() -> None:
        client.opened.events = select.POLLIN
        client.opened.changed()

    client.opened.meanwhile = [changes]
    assert client.ask(Tpollx(1, 0), 3) is None
    assert client.sent == [(3, Rpollx(select.POLLIN))]
    client.opened.changed()
    assert len(client.sent) == 1


def test_answer_is_to_the_question_that_is_open(client: Client) -> None:
    """Another thread answers the one, and the sandbox asks the next, while this one looks."""
    assert client.ask(Tpollx(1, 0), 3) is None

    def asked_anew() -> None:
        client.opened.changed()
        assert client.sent == [(3, Rpollx(select.POLLIN))]
        assert client.ask(Tpollx(1, select.POLLIN), 4) is None

    client.opened.events = select.POLLIN
    client.opened.meanwhile = [asked_anew]
    client.opened.changed()
    assert [tag for tag, _ in client.sent] in ([3], [3, 4])
