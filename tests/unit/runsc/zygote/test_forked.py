"""What a fork of the zygote is asked, and by whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsc.zygote import forked, place, protocol
from runsc.zygote.traits import Unlike


def test_a_request_is_read_as_it_was_made() -> None:
    words = ["run", "", "--bundle=/ü", "c\udcff"]
    environment = {b"A": b"1=2", b"EMPTY": b""}

    packet = protocol.pack("runsc", words, [0, 1, 2, 9], environment, protocol.STANDS)

    request = forked.Request("runsc", protocol.STANDS, (0, 1, 2, 9), words, environment)
    assert forked.read(packet) == request


def test_a_request_of_another_installation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packet = protocol.pack("runsc", [], [], {})
    monkeypatch.setattr(place, "HOME", "/elsewhere")

    with pytest.raises(Unlike, match="another program"):
        forked.read(packet)


@pytest.mark.parametrize("program", ["", "sh", "runsc.cli"])
def test_only_our_own_programs_are_run(program: str) -> None:
    with pytest.raises(Unlike):
        forked.read(protocol.pack(program, [], [], {}))


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=9), max_size=12).map(b"\0".join))
def test_what_is_no_request_is_refused(packet: bytes) -> None:
    for prefix in (b"", place.program() + b"\0runsc\0\0"):
        try:
            request = forked.read(prefix + packet)
        except Unlike:
            continue
        assert request.program in forked.PROGRAMS


@pytest.mark.parametrize(("numbers", "fds"), [((0, 1), [5]), ((1 << 30,), [5, 6]), ((), [])])
def test_descriptors_that_do_not_fit_are_refused(numbers: tuple[int, ...], fds: list[int]) -> None:
    request = forked.Request("runsc", protocol.BOUND, numbers, [], {})

    with pytest.raises(Unlike):
        forked._check(request, fds)
