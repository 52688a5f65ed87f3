"""runsc.oci.submounts: what is mounted below a folder, from a table as the kernel writes it."""

from __future__ import annotations

from pathlib import Path

from runsc.oci.submounts import Submount, writable_below


def test_places_that_can_be_written(tmp_path: Path) -> None:
    for name in ("top/rw", "top/ro", "top/with blank", "topping"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "top" / "file").touch()
    rows = [
        ("top", "rw"),
        ("top/rw", "ro,nosuid"),
        ("top/rw", "rw,relatime"),
        ("top/ro", "rw"),
        ("top/ro", "ro"),
        ("top/file", "rw"),
        ("top/with\\040blank", "nosuid,rw"),
        ("top/gone", "rw"),
        ("topping", "rw"),
    ]
    lines = [f"30 1 0:1 / {tmp_path}/{place} {how} shared:1 - x x rw" for place, how in rows]
    table = tmp_path / "mountinfo"
    table.write_text("\n".join(lines))

    assert writable_below(f"{tmp_path}/top/", str(table)) == [
        Submount("rw", is_file=False),
        Submount("file", is_file=True),
        Submount("with blank", is_file=False),
    ]
