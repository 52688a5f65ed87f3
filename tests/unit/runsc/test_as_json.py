"""JSON by the interpreter's C half says what a library says."""

from __future__ import annotations

import json

import msgspec
import pytest

from runsc import as_json

TEXTS = ["", "plain", 'a"\\/b', "\n\t\r\b\f", "\x00\x1f\x7f", "é ü \u2028 \U0001f600"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_written_as_msgspec_writes_it(text: str) -> None:
    assert as_json.quoted(text) == msgspec.json.encode(text).decode()
    assert as_json.loads(as_json.dumps(text)) == text


def test_values_are_written_in_one_line_and_read_back() -> None:
    value = {"a": [1, True, False, None, -5], "b": {"x": "é"}, "c": [], "d": {}}

    assert as_json.dumps(value) == msgspec.json.encode(value)
    assert as_json.loads(json.dumps(value, indent=1).encode()) == value
    assert as_json.dumps({"a": ("x",)}) == b'{"a":["x"]}'


@pytest.mark.parametrize(
    "data", [b"", b" ", b"{", b"{x", b"{} {}", b"nonsense", b"\xff", b"[" * 300_000, b'"\n"']
)
def test_what_is_none_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        as_json.loads(data)


def test_what_json_has_not_is_not_written() -> None:
    with pytest.raises(TypeError, match="object"):
        as_json.dumps({"a": object()})
