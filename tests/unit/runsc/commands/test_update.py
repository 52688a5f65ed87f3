from __future__ import annotations

from pathlib import Path

import pytest

from runsc.commands.update import _read, size
from runsc.errors import RuntimeFailure


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1", -1),
        ("0", 0),
        ("4096", 4096),
        ("4096b", 4096),
        ("64m", 64 << 20),
        ("1.5G", 3 << 29),
        ("100KiB", 100 << 10),
        ("2 gb", 2 << 30),
    ],
)
def test_size_takes_what_runc_takes(text: str, value: int) -> None:
    assert size(text, "memory") == value


@pytest.mark.parametrize("text", ["", "m", "-2", "1x", "1ib", "1e3", "0x10", "1 0"])
def test_size_refuses_the_rest(text: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid value for memory"):
        size(text, "memory")


def test_document_that_is_nested_without_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep").write_bytes(b"[" * 500_000)
    with pytest.raises(RuntimeFailure, match="nested too deeply"):
        _read(str(tmp_path / "deep"))
