"""A connection to the shim: whatever comes in, there is an answer, and the next one is served."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.errors import NoContainer, NotRunning, RuntimeFailure
from runsc.shim import messages as m
from runsc.shim import server as tested
from runsc.shim import ttrpc
from runsc.shim.loop import Loop, Promise
from runsc.shim.server import Method, Server, refusal
from runsc.shim.ttrpc import Code, Refused
from sentry.protobuf import Message, decode, encode

SERVICE = "test.Service"


class Client:
    """A client and the shim, in one thread."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop(lambda pid, status: None)
        self.logged: list[str] = []
        self.later: Promise[m.Pid] = Promise()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(folder / "s"))
        listener.listen()
        self.listener = listener
        services = {
            SERVICE: {
                "Echo": Method(m.Named, self._echo),
                "Later": Method(m.Named, self._later),
                "Fail": Method(m.Named, self._fail),
                "Break": Method(m.Named, self._break),
            }
        }
        self.server = Server(self.loop, listener, services, self.logged.append)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(folder / "s"))
        self.sock.setblocking(False)
        self.reader = ttrpc.Reader()
        self.turn()

    async def _echo(self, request: m.Named) -> Message:
        return request

    async def _later(self, request: m.Named) -> Message:
        return await self.later

    async def _fail(self, request: m.Named) -> Message:
        raise Refused(Code.ALREADY_EXISTS, "id x")

    async def _break(self, request: m.Named) -> Message:
        raise ZeroDivisionError

    def turn(self) -> None:
        """Let the shim do what can be done."""
        for _ in range(4):
            self.loop.after(0, self.loop.stop)
            self.loop._stopped = False
            self.loop.run()

    def send(self, data: bytes) -> None:
        while data:
            data = data[self.sock.send(data[: 1 << 16]) :]
            self.turn()

    def hear(self) -> list[tuple[int, m.Response]]:
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return []
        return [(f.stream, decode(m.Response, f.data)) for f in self.reader.feed(data)]

    def request(self, stream: int, method: str, payload: bytes = b"", service: str = "") -> None:
        request = m.Request(service or SERVICE, method, payload)
        self.send(ttrpc.frame(stream, ttrpc.REQUEST, encode(request)))

    def ask(self, stream: int, method: str, payload: bytes = b"") -> m.Response:
        self.request(stream, method, payload)
        [(answered, response)] = self.hear()
        assert answered == stream
        return response


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path)
    yield made
    made.sock.close()
    made.turn()
    made.listener.close()


def code(response: m.Response) -> int:
    return response.status.code if response.status is not None else 0


def test_without_a_descriptor_it_looks_again_later(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "AGAIN_S", 60.0)
    tries = 0

    class Full:
        """A listener for whose clients there is none left."""

        def fileno(self) -> int:
            return client.listener.fileno()

        def accept(self) -> None:
            nonlocal tries
            tries += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(client.server, "_listener", Full())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as another:
        another.connect(client.listener.getsockname())
        client.turn()
        assert tries == 1
        monkeypatch.setattr(client.server, "_listener", client.listener)
        [(_, _, again)] = client.loop._timers
        assert again.callback is not None
        again.callback()
        client.turn()
        assert len(client.server._connections) == 2


def test_a_request_is_answered(client: Client) -> None:
    payload = encode(m.Named("a", "b"))

    response = client.ask(1, "Echo", payload)

    assert (code(response), response.payload) == (Code.OK, payload)


def test_an_answer_that_waits_holds_up_no_other(client: Client) -> None:
    client.request(1, "Later")
    assert client.hear() == []

    assert code(client.ask(3, "Echo")) == Code.OK
    client.later.keep(m.Pid(7))
    client.turn()

    [(stream, response)] = client.hear()
    assert (stream, decode(m.Pid, response.payload).pid) == (1, 7)


def test_a_refusal_has_its_code_and_text(client: Client) -> None:
    assert client.ask(1, "Fail").status == m.Status(Code.ALREADY_EXISTS, "id x")


def test_a_defect_is_internal_and_logged_and_not_the_end(client: Client) -> None:
    assert code(client.ask(1, "Break")) == Code.INTERNAL

    assert "ZeroDivisionError" in client.logged[0]
    assert code(client.ask(3, "Echo")) == Code.OK


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (ttrpc.frame(2, ttrpc.REQUEST, b""), Code.INVALID_ARGUMENT),
        (ttrpc.frame(1, ttrpc.DATA, b""), Code.INVALID_ARGUMENT),
        (ttrpc.frame(1, 77, b"x"), Code.INVALID_ARGUMENT),
        (ttrpc.frame(1, ttrpc.REQUEST, b"\xff"), Code.INVALID_ARGUMENT),
        (ttrpc.frame(1, ttrpc.REQUEST, bytes(ttrpc.MOST + 1)), Code.RESOURCE_EXHAUSTED),
        (ttrpc.frame(1, ttrpc.REQUEST, b""), Code.UNIMPLEMENTED),
        (
            ttrpc.frame(1, ttrpc.REQUEST, encode(m.Request(SERVICE, "Echo", b"\x08"))),
            Code.INVALID_ARGUMENT,
        ),
        (
            ttrpc.frame(1, ttrpc.REQUEST, encode(m.Request(SERVICE, "None"))),
            Code.UNIMPLEMENTED,
        ),
    ],
)
def test_what_is_no_request_is_answered_and_the_next_one_served(
    client: Client, frame: bytes, expected: Code
) -> None:
    client.send(frame)

    [(_, response)] = client.hear()
    assert code(response) == expected
    assert code(client.ask(5, "Echo")) == Code.OK


def test_a_stream_cannot_be_used_again(client: Client) -> None:
    client.ask(5, "Echo")

    assert code(client.ask(5, "Echo")) == Code.INVALID_ARGUMENT
    assert code(client.ask(3, "Echo")) == Code.INVALID_ARGUMENT


def test_responses_are_not_answered(client: Client) -> None:
    client.send(ttrpc.frame(1, ttrpc.RESPONSE, b""))

    assert client.hear() == []
    assert code(client.ask(3, "Echo")) == Code.OK


def test_a_client_that_goes_away_in_the_middle_harms_nobody(client: Client) -> None:
    client.request(1, "Later")
    client.sock.close()
    client.turn()

    client.later.keep(m.Pid(1))
    client.turn()

    assert client.logged == []


def test_the_end_waits_for_every_answer_that_is_due(client: Client) -> None:
    ended: list[str] = []
    client.request(1, "Later")

    client.server.when_answered(lambda: ended.append("now"))
    assert code(client.ask(3, "Echo")) == Code.OK
    assert not ended
    client.later.keep(m.Pid(1))

    assert ended == ["now"]
    assert [stream for stream, _ in client.hear()] == [1]


def test_the_end_does_not_wait_for_a_client_that_is_gone(client: Client) -> None:
    ended: list[str] = []
    client.request(1, "Later")
    client.server.when_answered(lambda: ended.append("now"))

    client.sock.close()
    client.turn()

    assert ended == ["now"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NoContainer("a"), Code.NOT_FOUND),
        (NotRunning("a"), Code.NOT_FOUND),
        (RuntimeFailure("a"), Code.UNKNOWN),
        (FileNotFoundError(2, "No such file", "/x"), Code.UNKNOWN),
        (KeyError("a"), Code.INTERNAL),
    ],
)
def test_errors_of_the_runtime_have_codes(error: Exception, expected: Code) -> None:
    assert refusal(error).code == expected
    assert str(refusal(error))
