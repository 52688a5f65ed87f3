"""What a sandbox says when it cannot read a file."""

from __future__ import annotations

import pytest

from runsc.commands import read


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("ENOENT", "no such file or directory (ENOENT)"),
        ("EVERYTHING", "EVERYTHING"),
        ("errorcode", "errorcode"),
        ("__name__", "__name__"),
        ("", ""),
    ],
)
def test_only_an_errno_is_explained(said: str, shown: str) -> None:
    assert read._why(said) == shown
