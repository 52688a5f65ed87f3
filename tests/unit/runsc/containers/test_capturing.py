"""The command line's side of `debug --packets`, and sandboxes that say anything."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from runsc.containers import capturing
from runsc.containers.pcapng import Writer
from runsc.errors import RuntimeFailure
from sentry.control.answers import CapturedFrame, CapturedInterface, Packets
from sentry.control.protocol import Reply, Request, decode, encode
from tests.e2e.pcapng import Interface, Packet, Read

ETH = CapturedInterface(2, "eth0", True, 1, 0)
Answer = Callable[[Request], bytes | None]
"""To each question; None: the end."""


def captured(answer: Answer, interface: str = "") -> tuple[Read, int, list[Request]]:
    """What is in the file, what was lost, and the questions. A byte "!" of an answer stops it."""
    ours, theirs = socket.socketpair()
    stop, stopper = socket.socketpair()
    asked: list[Request] = []

    def serve() -> None:
        with theirs, theirs.makefile("rb") as lines, suppress(ConnectionError):
            for line in lines:
                asked.append(decode(line, Request))
                said = answer(asked[-1])
                if said is None:
                    return
                if said.startswith(b"!"):
                    stopper.send(b"!")
                theirs.sendall(said.lstrip(b"!"))

    thread = threading.Thread(target=serve)
    thread.start()
    file = io.BytesIO()
    capture = capturing.Capturing(ours, Writer(file), interface)
    try:
        capture.run(stop.fileno())
    finally:
        ours.close()
        thread.join()
        stop.close()
        stopper.close()
    return Read(file.getvalue()), capture.lost, asked


def reply(interfaces: list[CapturedInterface], frames: list[CapturedFrame]) -> bytes:
    return encode(Reply(packets=Packets(interfaces, frames)))


def test_frames_are_written_until_somebody_stops_it() -> None:
    frame = CapturedFrame(2, 5, b"x" * 20, outgoing=True)
    other = CapturedFrame(3, 6, b"\x45" + bytes(19))

    def answer(request: Request) -> bytes:
        if not request.ends:
            return b"!" + reply([ETH], [frame])
        tun = CapturedInterface(3, "tun0", False, 4, 3)
        answers.append(reply([tun], [other]) if len(answers) == 0 else reply([], []))
        return answers[-1]

    answers: list[bytes] = []
    found, lost, asked = captured(answer, "eth0")

    assert found.interfaces == [Interface("eth0", 1), Interface("tun0", 101)]
    assert Packet(1, 6, other.data, False) in found.packets
    assert Packet(0, 5, frame.data, True) in found.packets
    assert found.statistics == {0: (1, 0), 1: (4, 3)} and lost == 3
    assert {each.interface for each in asked} == {"eth0"}


@pytest.mark.parametrize("says", [b"", reply([ETH], [CapturedFrame(2, 5, b"y" * 14)])])
def test_stopped_it_waits_for_no_last_frame_for_ever(
    monkeypatch: pytest.MonkeyPatch, says: bytes
) -> None:
    monkeypatch.setattr(capturing, "LAST_S", 0.05)
    first = iter([b""])

    def answer(request: Request) -> bytes:
        return says if request.ends else next(first, b"!") + reply([ETH], [])

    found, _, _ = captured(answer)
    assert found.statistics == {0: (1, 0)}


def test_answers_without_end_to_no_question_are_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capturing, "LAST_S", 0.05)
    ours, theirs = socket.socketpair()
    stop, stopper = socket.socketpair()

    def say() -> None:
        with suppress(ConnectionError):
            while True:
                theirs.sendall(reply([], []))

    thread = threading.Thread(target=say)
    thread.start()
    with pytest.raises(TimeoutError):
        capturing.Capturing(ours, Writer(io.BytesIO()), "").run(stop.fileno())
    ours.close()
    thread.join()
    for each in (theirs, stop, stopper):
        each.close()


def test_end_of_the_container_is_the_end_of_the_file() -> None:
    answers = [reply([ETH], [CapturedFrame(2, 5, b"y" * 14)]), None]
    found, lost, _ = captured(lambda _: answers.pop(0))
    assert len(found.packets) == 1 and found.statistics == {0: (1, 0)} and not lost


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (encode(Reply(error="no such\ninterface")), "no such"),
        (encode(Reply()), "shows no packets"),
        (b"{}\n{\n", "no message"),
        (b"]\n", "no message"),
        (b'{"packets":{"frames":[{"index":1e99,"at_ns":0,"data":""}]}}\n', "no message"),
    ],
)
def test_answer_that_is_none_is_told(said: bytes, told: str) -> None:
    with pytest.raises(RuntimeFailure, match=told):
        captured(lambda _: said)


def test_whatever_the_sandbox_says_the_file_is_well_formed() -> None:
    odd = [
        CapturedInterface(-5, "e\x1b[31m\n" + "x" * 1000, True, -1, 1 << 62),
        CapturedInterface(-5, "another", False, 3, 4),
    ]
    frames = [CapturedFrame(-5, -1, b""), CapturedFrame(77, 0, b"z")]
    answers = [reply(odd, frames), None]
    found, _, _ = captured(lambda _: answers.pop(0))
    assert len(found.interfaces) == 1 and len(found.packets) == 1
    assert "\x1b" not in found.interfaces[0].name
    assert found.statistics == {0: (3, 4)}
