"""docs/points.md is what there is."""

from __future__ import annotations

from pathlib import Path

from sentry.watch.listing import page

PAGE = Path(__file__).parents[3] / "docs/points.md"


def test_the_page_is_what_the_points_say() -> None:
    assert PAGE.read_text() == "\n".join(page()) + "\n", (
        "python -m sentry.watch.listing > docs/points.md"
    )
