"""sentry.syscalls.compat: the table is complete and says what the declarations say."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from sentry.syscalls import compat
from sentry.syscalls.registry import NUMBERS, TABLE


def test_every_number_has_a_line() -> None:
    rows = compat.rows()
    assert [row.number for row in rows] == sorted(NUMBERS)
    assert {row.name for row in rows} >= {"read", "clone3", "mseal"}


def test_support_is_that_of_the_declaration() -> None:
    for row in compat.rows():
        declaration = TABLE[row.number]
        if declaration is None:
            assert row.support in (compat.Support.ABSENT, compat.Support.NOWHERE)
        else:
            assert (row.support is compat.Support.PARTIAL) == bool(declaration.partial)
            assert row.note == declaration.partial


def test_what_linux_dropped_is_not_declared() -> None:
    by_name = {row.name: row for row in compat.rows()}
    for name in compat.GONE_FROM_LINUX & set(by_name):
        assert by_name[name].support is compat.Support.NOWHERE


def test_reasons_are_for_calls_that_exist() -> None:
    names = set(NUMBERS.values())
    assert all(set(calls) <= names for calls in compat.REASONS.values())


def test_both_forms_end_with_the_numbers() -> None:
    rows = compat.rows()
    assert compat.summary(rows) in compat.as_text(rows)
    assert compat.as_markdown(rows).count("\n| ") == len(rows) + 1


def test_csv_and_json_say_the_same() -> None:
    rows = compat.rows()
    from_csv = list(csv.DictReader(io.StringIO(compat.as_csv(rows))))
    from_json = json.loads(compat.as_json(rows))
    assert len(from_csv) == len(rows)
    assert [{name: str(value) for name, value in row.items()} for row in from_json] == from_csv
    assert from_json[0] == {"number": 0, "name": "read", "support": "full", "note": ""}


def test_committed_page_is_what_would_be_generated() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "syscalls.md"
    assert page.read_text() == compat.as_markdown(compat.rows()), (
        "python -m sentry.syscalls.compat > docs/syscalls.md"
    )
