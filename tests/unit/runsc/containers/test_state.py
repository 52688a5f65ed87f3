"""What is kept of a container on disk."""

from __future__ import annotations

import json

import msgspec
import pytest

from runsc.cgroups import Record
from runsc.containers.state import State, decode, encode
from runsc.errors import RuntimeFailure
from runsc.oci import hooks
from runsc.oci.spec import Hook, Hooks


def test_all_that_is_kept_comes_back() -> None:
    made = State(
        oci_version="1.2.0",
        id="c",
        bundle="/bündel",
        pid=5,
        annotations={"a": "\n"},
        pid_start=7,
        foreground=True,
        phase="running",
        cgroups=Record({"": "/sys/fs/cgroup/c"}, {"cpu": ""}, ("/sys/fs/cgroup/c",), "u", "s"),
        hooks=hooks.written(Hooks(poststop=[Hook("/x", ["x", "y"], None, 3)])),
    )

    assert decode(encode(made)) == made
    assert hooks.read(made.hooks) == Hooks(poststop=[Hook("/x", ["x", "y"], None, 3)])


def test_names_are_those_of_the_specification_and_defaults_are_left_out() -> None:
    made = State("1.2.0", "c", "/b", pid=5, pid_start=7, cgroups=Record(unit="u"))

    assert json.loads(encode(made)) == {
        "ociVersion": "1.2.0", "id": "c", "bundle": "/b", "pid": 5, "pidStart": 7,
        "cgroups": {"unit": "u"},
    }  # fmt: skip


def test_fields_that_are_not_known_are_not_looked_at() -> None:
    assert decode(b'{"ociVersion":"1","id":"c","bundle":"/b","new":[1]}') == State("1", "c", "/b")


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("id", 5, "Expected `str` - at `$.id`"),
        ("pid", True, "Expected `int` - at `$.pid`"),
        ("pid", "5", "Expected `int` - at `$.pid`"),
        ("paused", 1, "Expected `bool` - at `$.paused`"),
        ("annotations", {"a": 5}, "at `$.annotations`"),
        ("annotations", [], "at `$.annotations`"),
        ("cgroups", 5, "Expected `object` - at `$.cgroups`"),
        ("cgroups", {"made": [5]}, "at `$.cgroups.made`"),
        ("hooks", [], "at `$.hooks`"),
    ],
)
def test_values_of_another_kind_are_refused(field: str, value: object, what: str) -> None:
    document = {"ociVersion": "1", "id": "c", "bundle": "/b", field: value}

    with pytest.raises(ValueError, match=r".") as caught:
        decode(json.dumps(document).encode())
    assert what in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"{}", b'{"id":"c","bundle":"/b"}'])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data)


def test_hooks_that_are_none_are_refused() -> None:
    with pytest.raises(RuntimeFailure, match=r"hooks in state\.json"):
        hooks.read({"poststop": 5})
    with pytest.raises(RuntimeFailure, match=r"hooks in state\.json"):
        hooks.process({})
    assert hooks.written(None) == {}
    assert msgspec.to_builtins(hooks.read({})) == {}
