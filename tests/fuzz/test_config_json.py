"""No document makes the command line fail in another way than with a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from runsc.commands.spec import example
from runsc.errors import RuntimeFailure
from runsc.oci import convert, spec
from tests.fuzz.running import explore, for_a_while, kept

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 65), 1 << 65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["/", "/x", "CAP_KILL", "RLIMIT_CPU", "bind", "ro", "rbind", "c", "a=b", "\0"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "path", "source", "uid", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be put in another's place."""
    found = [prefix] if prefix else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _paths(inner, (*prefix, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _paths(inner, (*prefix, index))
    return found


GOOD = msgspec.to_builtins(example())
GOOD["root"]["path"] = "/"
GOOD["mounts"].append({"destination": "/m", "type": "bind", "source": "/", "options": ["rbind"]})
NULL = {"type": "c", "path": "/dev/x", "major": 1, "minor": 3}
GOOD["linux"].update(devices=[NULL], sysctl={"net.a": "1"})
PATHS = _paths(GOOD)


def check_changes(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = json.loads(json.dumps(GOOD))
    for path, value in changes:
        place = document
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue
    _understand(json.dumps(document).encode())


@for_a_while()
def test_document_with_something_replaced_is_taken_or_refused(seconds: float) -> None:
    changes = st.lists(st.tuples(st.sampled_from(PATHS), VALUES), min_size=1, max_size=3)
    explore(seconds, check_changes, 300, changes=changes)


@kept("config_json")
def test_kept_document_is_taken_or_refused(case: list[tuple[tuple[Any, ...], Any]]) -> None:
    check_changes(case)


def check_bytes(data: bytes) -> None:
    with pytest.raises(RuntimeFailure):
        spec.decode(data, spec.Spec)


@for_a_while(1, 10)
def test_bytes_are_refused(seconds: float) -> None:
    explore(seconds, check_bytes, 300, data=st.binary(max_size=64))


def _understand(data: bytes) -> None:
    try:
        convert.container("/", spec.decode(data, spec.Spec), "memory", _nothing)
    except RuntimeFailure as error:
        assert str(error)


def _nothing(message: str) -> None:
    """Warnings."""


def test_the_document_that_is_changed_is_good() -> None:
    convert.container(
        str(Path("/")), spec.decode(json.dumps(GOOD).encode(), spec.Spec), "none", _nothing
    )
