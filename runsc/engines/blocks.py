"""Lines of ours in a TOML file of somebody else, between two comments that say so.

Python has no writer of TOML, and one would lose comments. That a change does what it should and
nothing else is proved by parsing both texts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from runsc.engines.settings import SettingsError

Keys = tuple[str, ...]


def begin(name: str) -> str:
    """The line above ours."""
    return f"# runtime {name}: written by `runsc install`, taken away by `runsc uninstall`"


def end(name: str) -> str:
    """The line below them."""
    return f"# end of runtime {name}"


def document(text: str) -> dict[str, Any]:
    """Raises: SettingsError."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"not TOML: {error}") from None


def at(values: Any, keys: Keys) -> Any:
    """What stands there; None for nothing."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def put(text: str, name: str, lines: Sequence[str], at_line: int | None = None) -> str:
    """With the block before that line, or at the end."""
    before = text.splitlines(keepends=True)
    if before and not before[-1].endswith("\n"):
        before[-1] += "\n"
    place = len(before) if at_line is None else at_line
    block = [f"{line}\n" for line in (begin(name), *lines, end(name))]
    return "".join([*before[:place], *block, *before[place:]])


def cut(text: str, name: str) -> str:
    """Without the block; as it is if there is none."""
    lines = text.splitlines(keepends=True)
    plain = [line.strip() for line in lines]
    if begin(name) not in plain or end(name) not in plain:
        return text
    first, last = plain.index(begin(name)), plain.index(end(name))
    return "".join(lines[:first] + lines[last + 1 :]) if first < last else text


def prove(before: str, after: str, keys: Keys, value: Any) -> str:
    """`after`, which says `value` there and else what `before` says. Raises: SettingsError."""
    try:
        now = document(after)
    except SettingsError:
        now = {}
    if at(now, keys) != value or _without(now, keys) != _without(document(before), keys):
        raise SettingsError(
            f"{'.'.join(keys[:-1])} is written there in a way to which nothing can be added"
        )
    return after


def _without(values: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """But for that, and tables that are empty then."""
    values = deepcopy(values)
    tables = [values]
    for key in keys[:-1]:
        inner = tables[-1].get(key)
        if not isinstance(inner, dict):
            return values
        tables.append(inner)
    for table, key in zip(reversed(tables), reversed(keys), strict=True):
        if key == keys[-1] or not table.get(key):
            table.pop(key, None)
    return values
