"""Protocol buffers: known bytes both ways, and bytes that are no message."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsc.shim import messages
from sentry.protobuf import Message, Signed, decode, encode


class Inner(Message):
    a: Annotated[int, 1] = 0


class Sample(Message):
    number: Annotated[int, 1] = 0
    text: Annotated[str, 2] = ""
    inner: Annotated[Inner | None, 3] = None
    numbers: Annotated[list[int], 4] = []  # noqa: RUF012
    texts: Annotated[list[str], 5] = []  # noqa: RUF012
    flag: Annotated[bool, 6] = False
    below: Annotated[int, 7, Signed] = 0
    pairs: Annotated[dict[str, str], 8] = {}  # noqa: RUF012
    inners: Annotated[list[Inner], 9] = []  # noqa: RUF012
    raw: Annotated[bytes, 10] = b""
    far: Annotated[int, 1000] = 0


@pytest.mark.parametrize(
    ("message", "data"),
    [
        # the examples of protobuf.dev, "Encoding"
        (Sample(number=150), "089601"),
        (Sample(text="testing"), "120774657374696e67"),
        (Sample(inner=Inner(150)), "1a03089601"),
        (Sample(numbers=[3, 270, 86942]), "2206038e029ea705"),
        (Sample(texts=["a", "b"]), "2a01612a0162"),
        (Sample(flag=True), "3001"),
        (Sample(below=-2), "38feffffffffffffffff01"),
        (Sample(pairs={"k": "v"}), "42060a016b120176"),
        (Sample(inners=[Inner(), Inner(1)]), "4a004a020801"),
        (Sample(raw=b"\xff\0"), "5202ff00"),
        (Sample(number=(1 << 64) - 1), "08ffffffffffffffffff01"),
        (Sample(far=1), "c03e01"),
        (Sample(), ""),
        (Sample(inner=Inner()), "1a00"),
    ],
)
def test_known_bytes_both_ways(message: Sample, data: str) -> None:
    assert encode(message).hex() == data
    assert decode(Sample, bytes.fromhex(data)) == message


def test_a_request_of_containerd_is_read() -> None:
    # service, method, payload, five seconds
    data = bytes.fromhex(
        "0a17" + b"containerd.task.v2.Task".hex() + "1207" + b"Connect".hex() + "1a040a026131"
        "2080e497d012"
    )

    request = decode(messages.Request, data)

    assert (request.service, request.method) == ("containerd.task.v2.Task", "Connect")
    assert request.timeout_nano == 5_000_000_000
    assert decode(messages.Named, request.payload) == messages.Named("a1")


def test_unknown_fields_are_skipped() -> None:
    data = bytes.fromhex("089601" "f83f05" "fa3f0161" "f93f0000000000000000" "fd3f00000000")

    assert decode(Sample, data) == Sample(number=150)


def test_numbers_that_are_not_packed_are_read_too() -> None:
    assert decode(Sample, bytes.fromhex("20032004")) == Sample(numbers=[3, 4])


def test_of_a_field_twice_the_last_counts() -> None:
    assert decode(Sample, bytes.fromhex("08010802")) == Sample(number=2)


@pytest.mark.parametrize(
    "data",
    [
        "08",  # a number without an end
        "08ffffffffffffffffffff01",
        "1205",  # bytes without an end
        "12ffffffffffffffff7f",
        "0a0161",  # bytes where a number is
        "1001",  # a number where bytes are
        "1201ff",  # no UTF-8
        "0b",  # groups
        "0e",
        "0001",  # field 0
        "1a0108",  # an inner one is wrong
        "15",
    ],
)
def test_what_is_no_message_is_a_value_error(data: str) -> None:
    with pytest.raises(ValueError):
        decode(Sample, bytes.fromhex(data))


class Deep(Message):
    inner: Annotated[Deep | None, 1] = None


def test_messages_deep_in_one_another_are_refused() -> None:
    data = b""
    for _ in range(40):
        data = b"\x0a" + bytes([len(data)]) + data

    with pytest.raises(ValueError, match="too many"):
        decode(Deep, data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    for kind in (Sample, messages.CreateTask, messages.Request, messages.CreateSandbox):
        try:
            message = decode(kind, data)
        except ValueError:
            continue
        assert decode(kind, encode(message)) == message


def test_every_message_has_a_number_for_each_field() -> None:
    named = [each for each in vars(messages).values() if isinstance(each, type)]
    kinds = [each for each in named if issubclass(each, Message) and each is not Message]

    for kind in kinds:
        assert decode(kind, encode(kind())) == kind()
    assert len(kinds) > 40
