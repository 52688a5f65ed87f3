"""Figures beside records: asked for over a connection, with a sandbox that may say anything."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from runsc.containers import sampling, watching
from runsc.containers.sampling import Sample, Sampler
from sentry.control.answers import Cost, ProcessInfo, Profile
from sentry.control.protocol import Reply, Request, decode, encode

PROFILE = Profile(10**9, 7, 0, 0, 0, 1, {"read": Cost(1, 2, 3)}, Cost(4, 5, 6), Cost(0, 0, 0), {})


@pytest.fixture
def sandbox() -> Iterator[tuple[Sampler, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        sampler = Sampler(ours)
        yield sampler, theirs
        sampler.close()


def _asked(sandbox: socket.socket) -> str:
    return decode(sandbox.recv(1 << 16), Request).op


def test_a_sample_is_figures_and_what_the_second_before_was_spent_with(
    sandbox: tuple[Sampler, socket.socket],
) -> None:
    sampler, theirs = sandbox
    assert _asked(theirs) == "metrics"
    theirs.sendall(encode(Reply(counts={"tasks": 1})))
    [first] = sampler.hear()
    assert _asked(theirs) == "profile"
    theirs.sendall(encode(Reply(profile=PROFILE)))
    assert sampler.hear() == []
    assert _asked(theirs) == "metrics"
    theirs.sendall(encode(Reply(counts={"tasks": 2})))
    [second] = sampler.hear()
    assert (first.counts, first.calls) == ({"tasks": 1}, {})
    assert (second.counts, second.calls) == ({"tasks": 2}, {"read": Cost(1, 2, 3)})
    assert second.guest_ns == 7


def test_while_somebody_else_measures_there_are_figures_alone_once_a_second(
    sandbox: tuple[Sampler, socket.socket],
) -> None:
    sampler, theirs = sandbox
    theirs.sendall(encode(Reply(counts={"tasks": 1})))
    sampler.hear()
    theirs.recv(1 << 16)
    theirs.sendall(encode(Reply(error="it is being profiled already")))
    now = time.monotonic()
    assert sampler.hear() == []
    assert now < sampler.due <= time.monotonic() + 1
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    sampler.due = 0
    sampler.tick()
    assert _asked(theirs) == "metrics"


def test_processes_are_listed_if_they_are_wanted() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        sampler = Sampler(ours, lists=True)
        for asked, reply in (
            ("metrics", Reply(counts={"tasks": 1})), ("profile", Reply(profile=PROFILE)),
            ("ps", Reply(processes=[ProcessInfo(1, 0, 0, "sh", "S")])),
        ):  # fmt: skip
            assert _asked(theirs) == asked
            theirs.sendall(encode(reply))
            sampler.hear()
        assert [each.command for each in sampler.processes] == ["sh"]
        sampler.close()


@pytest.mark.parametrize("said", [b"", b"{}\n", b"no json\n", b'{"counts": {"x": "y"}}\n'])
def test_a_sandbox_that_says_something_else_is_not_asked_any_more(
    sandbox: tuple[Sampler, socket.socket], said: bytes
) -> None:
    sampler, theirs = sandbox
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    assert sampler.hear() == []
    assert sampler.is_over


def test_what_is_no_sample_is_an_error_or_none() -> None:
    whole = sampling.message(Sample(1, {"a": 2}))
    assert sampling.parse(whole) == Sample(1, {"a": 2})
    assert sampling.parse(b"\x08") is None
    assert watching.parse(whole, str) is None  # who reads records alone passes it over
    assert list(sampling.kept([Sample(1, {"x" * (1 << 20): 2}), Sample(1, {"a": 2})])) == [whole]
    with pytest.raises(ValueError, match="Sample"):
        sampling.parse(whole[:-1])
