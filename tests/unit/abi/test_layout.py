"""`Record` is typing.NamedTuple, but for what making a class costs."""

from __future__ import annotations

import builtins
import copy
from typing import Any, NamedTuple

import pytest

from sentry.abi.layout import Record


class Plain(NamedTuple):
    first: int
    second: str = "two"
    third: int | None = None


class Made(Record):
    first: int
    second: str = "two"
    third: int | None = None


def outcome(kind: Any, text: str) -> object:
    """What an expression about a class gives: a tuple, another value, or the kind of error."""
    try:
        found = eval(text, {"kind": kind, "one": kind(1), "copy": copy})
    except (TypeError, ValueError, AttributeError) as error:
        return TypeError if isinstance(error, ValueError) else type(error)
    return tuple(found) if isinstance(found, kind) else found


@pytest.mark.parametrize(
    "text",
    [
        "kind(1)", "kind(1, '2')", "kind(1, '2', 3)", "kind(1, third=3)", "kind(1, first=1)",
        "kind(second='2', first=1)", "kind()", "kind(second='2')", "kind(1, '2', 3, 4)",
        "kind(1, fourth=4)",
        "one.first, one.second, one.third", "one.fourth", "one == (1, 'two', None)", "one[1:]",
        "one._replace(third=3)", "one._replace(fourth=4)", "one._replace()", "one._asdict()",
        "kind._make((1, 2, 3))", "kind._fields", "kind._field_defaults", "kind.__match_args__",
        "copy.copy(one)", "copy.deepcopy(one)", "type(copy.copy(one)) is kind",
        "repr(one).partition('(')[2]", "hash(one)", "hasattr(one, '__dict__')",
    ],
)  # fmt: skip
def test_a_record_is_used_like_a_named_tuple(text: str) -> None:
    assert outcome(Made, text) == outcome(Plain, text)


def test_making_a_record_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of typing compiles each annotation, and more: that is what each start waits for."""
    monkeypatch.setattr(builtins, "compile", None)
    monkeypatch.setattr(builtins, "eval", None)
    body = {"__module__": __name__, "__annotations__": {"a": "int | None", "b": "dict[str, int]"}}
    made: Any = type(Made)("Other", (Record,), body)
    assert tuple(made(1, {})) == (1, {})
