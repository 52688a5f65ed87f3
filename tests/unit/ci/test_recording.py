"""ci/recording.py: what is seen of a terminal, and when."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

CI = Path(__file__).resolve().parents[3] / "ci"


@pytest.fixture(scope="module")
def recording() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recording", CI / "recording.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_shows_each_piece_at_its_time(recording: ModuleType) -> None:
    pieces = [(0.0, "$ ", False), (1.0, "l", True), (1.5, "s", True), (2.0, "\na<b>\n$ ", False)]

    picture = recording.svg(recording.lines_of(pieces))

    assert recording.text_of(picture) == ["$ ls", "a<b>"]
    ElementTree.fromstring(picture)
    whole = 2.0 + recording.STAY_S
    shares = [float(share) for share in re.findall(r"hidden}(.*?)%", picture)]
    assert shares == pytest.approx([100 * at / whole for at in (0.0, 1.0, 1.5, 2.0)], abs=0.01)
    assert "prefers-color-scheme: dark" in picture and "prefers-reduced-motion" in picture


def test_shell_shows_what_was_typed_and_said(recording: ModuleType, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PS1": recording.PROMPT, "TERM": "dumb", "LC_ALL": "C"}
    shell = recording.Shell(tmp_path, environment)
    shell.until(recording.PROMPT)
    shell.run("echo $((6 * 7)); echo '$ not the prompt'")
    shell.close()

    lines = recording.lines_of(shell.pieces)

    assert recording.text_of(recording.svg(lines)) == [
        "$ echo $((6 * 7)); echo '$ not the prompt'", "42", "$ not the prompt",
    ]  # fmt: skip
    times = [at for at, _, _ in shell.pieces]
    assert times == sorted(times)


def test_the_picture_of_the_readme_fits(recording: ModuleType) -> None:
    picture = recording.PICTURE.read_text()
    lines = recording.text_of(picture)

    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    assert typed == list(recording.TYPED)
    assert max(map(len, lines)) <= recording.COLUMNS
    (seconds,) = set(re.findall(r"animation:t\d+ ([\d.]+)s", picture))
    assert float(seconds) - recording.STAY_S < 10
