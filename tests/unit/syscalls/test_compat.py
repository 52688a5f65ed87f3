"""sentry.syscalls.compat: the table is complete and says what the declarations say."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from sentry.syscalls import compat, compat_rows
from sentry.syscalls.registry import ABSENT, NUMBERS, TABLE, absent
from sentry.vfs.rows import Rows


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


def test_every_call_that_is_absent_says_why() -> None:
    missing = {row.number for row in compat.rows() if row.support is compat.Support.ABSENT}
    assert missing == set(ABSENT)
    assert all(ABSENT.values())


@pytest.mark.parametrize("number", [500, next(iter(ABSENT))])
def test_absent_is_for_calls_of_linux_and_once(number: int) -> None:
    with pytest.raises(TypeError):
        absent(number, "why not")


@pytest.mark.parametrize("groups", [compat_rows.SOCKOPTS, compat_rows.IOCTLS])
def test_rows_of_a_group_are_those_of_its_tables(groups: tuple[compat_rows.Group, ...]) -> None:
    for group in groups:
        rows = {row.number: row for row in compat_rows.rows([group])}
        declared = [row for table in group.tables for row in table.declared]
        assert declared
        for row in declared:
            assert rows[row.number].support is not compat_rows.Support.ABSENT


def test_what_only_the_headers_have_is_absent() -> None:
    rows = {(r.group, r.name): r for r in compat_rows.rows(compat_rows.SOCKOPTS)}
    assert rows["SOL_SOCKET", "SO_ATTACH_BPF"].support is compat_rows.Support.ABSENT
    assert rows["SOL_SOCKET", "SO_TYPE"].support is compat_rows.Support.FULL
    assert rows["IPPROTO_TCP", "TCP_REPAIR"].note
    assert not any("PMTUDISC" in name for _, name in rows)


def test_every_row_of_the_sentry_is_in_a_group() -> None:
    groups = (*compat_rows.SOCKOPTS, *compat_rows.IOCTLS)
    shown = {row.name for group in groups for table in group.tables for row in table.declared}
    for name, module in list(sys.modules.items()):
        if not name.startswith("sentry.") or name.startswith("sentry.net.host"):
            continue
        for table in vars(module).values():
            if isinstance(table, Rows):
                assert {row.name for row in table.everything().values()} <= shown, name


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
    assert page.read_text() == compat.page(), (
        "python -m sentry.syscalls.compat > docs/syscalls.md"
    )
