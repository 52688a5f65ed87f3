"""Rules about faults, as people write them: `--inject`, `runsc inject`, `sandbox.inject`.

One is a line, `read,pread64: errno=EIO, path=/data/**, probability=0.1, seed=7`; many are lines, or
stand between semicolons, or are tables `[[rule]]` of a TOML document with the same words. See
docs/faults.md.
"""

from __future__ import annotations

import os
import re
import tomllib
from typing import Any, Final

import msgspec

from runsc.errors import RuntimeFailure
from runsc.spans import span_ns
from sentry.faults import MAX_RULES, InjectRule

MAX_BYTES: Final = 1 << 20
_NUMBERS: Final = {"short": int, "after": int, "count": int, "probability": float, "seed": int}
_LISTS: Final = {"path": "paths", "program": "programs"}
_WORDS: Final = {"errno", "direction"}
_SWITCHES: Final = {"loss": "drop", "reorder": "reorder"}


def rules_of(text: str) -> tuple[InjectRule, ...]:
    """Of lines, or of a TOML document. Raises: ValueError."""
    if re.search(r"^\s*\[\[?\s*rule\s*\]\]?", text, re.M):
        return _of_toml(text)
    lines = [line.strip() for line in re.split(r"[;\n]", text)]
    found = tuple(_of_line(line) for line in lines if line and not line.startswith("#"))
    if len(found) > MAX_RULES:
        raise ValueError(f"more than {MAX_RULES} rules")
    return found


def read(given: str) -> tuple[InjectRule, ...]:
    """Rules, or the file that has them: a path, with a slash in it. Raises: RuntimeFailure."""
    text = given
    if ":" not in given or (os.sep in given.partition(":")[0] or os.path.exists(given)):
        try:
            with open(given, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise RuntimeFailure(
                f"open {given}: {(error.strerror or '').lower()}",
                hint="what has no colon is a file, a rule has one: see docs/faults.md",
            ) from None
        if len(data) > MAX_BYTES:
            raise RuntimeFailure(f"{given}: more than {MAX_BYTES} bytes")
        text = data.decode("utf-8", "surrogateescape")
    try:
        return rules_of(text)
    except ValueError as error:
        raise RuntimeFailure(f"faults: {error}") from None


def _of_line(line: str) -> InjectRule:
    calls, colon, rest = line.partition(":")
    if not colon:
        raise ValueError(f"{line[:60]!r} is no rule such as `read: errno=EIO`")
    fields: dict[str, Any] = {"calls": [name.strip() for name in calls.split(",")]}
    for word in filter(None, (word.strip() for word in rest.split(","))):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key in _SWITCHES and not equals:
            fields[key] = True
        elif not equals:
            raise ValueError(f"{word[:40]!r} in a rule has no value")
        elif key in _LISTS:
            fields.setdefault(key, []).append(value)
        else:
            fields[key] = value
    return _made(fields)


def _of_toml(text: str) -> tuple[InjectRule, ...]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(str(error)) from None
    rules = document.pop("rule", [])
    if document or not isinstance(rules, list):
        raise ValueError("a document has tables [[rule]] and nothing else")
    if len(rules) > MAX_RULES:
        raise ValueError(f"more than {MAX_RULES} rules")
    return tuple(_made(dict(rule)) for rule in rules)


def _made(fields: dict[str, Any]) -> InjectRule:
    """Raises: ValueError."""
    made: dict[str, Any] = {}
    for key, value in fields.items():
        if key == "calls":
            made[key] = [value] if isinstance(value, str) else value
        elif key in _NUMBERS:
            made[key] = _number(key, value)
        elif key in _LISTS:
            made[_LISTS[key]] = [value] if isinstance(value, str) else value
        elif key == "delay":
            made["delay_ns"] = span_ns(value)
        elif key in _SWITCHES:
            made[_SWITCHES[key]] = value
        elif key in _WORDS:
            made[key] = value
        else:
            raise ValueError(f"a rule has no {key[:40]!r}")
    try:
        return msgspec.convert(made, InjectRule)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _number(key: str, value: Any) -> int | float:
    try:
        found: int | float = _NUMBERS[key](value)
        return found
    except (TypeError, ValueError):
        raise ValueError(f"{key}={value!r} is no number") from None


def line_of(rule: InjectRule) -> str:
    """A rule as a line."""
    words = [f"errno={rule.errno}"] if rule.errno else []
    words += [f"short={rule.short}"] if rule.short >= 0 else []
    ms, rest_ns = divmod(rule.delay_ns, 10**6)
    words += [f"delay={rule.delay_ns}ns" if rest_ns else f"delay={ms}ms"] if rule.delay_ns else []
    words += ["loss"] if rule.drop else []
    words += ["reorder"] if rule.reorder else []
    words += [f"direction={rule.direction}"] if rule.direction else []
    words += [f"path={each}" for each in rule.paths]
    words += [f"program={each}" for each in rule.programs]
    words += [f"after={rule.after}"] if rule.after else []
    words += [f"count={rule.count}"] if rule.count else []
    words += [f"probability={rule.probability!r}"] if rule.probability < 1 else []
    words += [f"seed={rule.seed}"] if rule.seed else []
    return f"{','.join(rule.calls)}: {', '.join(words)}"
