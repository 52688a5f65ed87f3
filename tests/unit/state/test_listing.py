"""docs/reference/snapshot-format.md is what the records say."""

from __future__ import annotations

from pathlib import Path

from sentry.state import records
from sentry.state.listing import page

PAGE = Path(__file__).parents[3] / "docs/reference/snapshot-format.md"


def test_the_page_is_what_the_records_say() -> None:
    assert PAGE.read_text() == "\n".join(page()) + "\n", (
        "python -m sentry.state.listing > docs/reference/snapshot-format.md"
    )


def test_every_field_of_every_record_is_there() -> None:
    text = PAGE.read_text()
    kinds = [each for each in vars(records).values() if isinstance(each, type)]
    for kind in kinds:
        if issubclass(kind, records.Record) and kind is not records.Record:
            part = text.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
            assert part, kind
            assert all(f"\n| `{name}` |" in part for name in vars(kind).get("__annotations__", ()))
