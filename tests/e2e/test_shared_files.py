"""A folder of the host that both sides change: whoever looks next sees it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.talker import Talker

LOOK = """
look() { cat /srv/d/file /srv/link; stat -c '%a %s %h' /srv/d/file; ls -d /srv/d/*; }
while read -r word; do
    for i in 1 2 3; do look >/tmp/$i 2>&1; done
    cmp -s /tmp/1 /tmp/3 || echo changing
    tr '\\n' ' ' </tmp/1; echo
done
"""
"""What is seen at once, and that it stays so."""


def _replace(folder: Path) -> None:
    (folder / "new").write_text("b\n")
    os.chmod(folder / "new", 0o644)
    os.rename(folder / "new", folder / "d/file")


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: None, "a l 644 2 1 /srv/d/file "),
    (lambda folder: (folder / "d/file").write_text("more\n"), "more l 644 5 1 /srv/d/file "),
    (lambda folder: (folder / "d/file").chmod(0o600), "more l 600 5 1 /srv/d/file "),
    (_replace, "b l 644 2 1 /srv/d/file "),
    (
        lambda folder: os.link(folder / "d/file", folder / "d/x"),
        "b l 644 2 2 /srv/d/file /srv/d/x ",
    ),
    (
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("d/file")),
        "b b 644 2 2 /srv/d/file /srv/d/x ",
    ),
    (lambda folder: (folder / "d/x").unlink(), "b b 644 2 1 /srv/d/file "),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "d").mkdir(parents=True)
    (made / "d/file").write_text("a\n")
    (made / "l").write_text("l\n")
    (made / "link").symlink_to("l")
    os.chmod(made / "d/file", 0o644)
    return made


def test_program_sees_what_the_host_has_changed(
    bundle: Bundle, folder: Path, platform: str
) -> None:
    mount = {"destination": "/srv", "type": "bind", "source": str(folder), "options": ["bind"]}
    bundle.document["mounts"].append(mount)
    program = Talker(bundle.args("sh", "-c", LOOK).command(platform))

    seen = []
    for change, _ in CHANGES:
        change(folder)
        program.say("look")
        seen.append(program.hear())

    assert program.end() == []
    assert [line.strip() for line in seen] == [line.strip() for _, line in CHANGES]
