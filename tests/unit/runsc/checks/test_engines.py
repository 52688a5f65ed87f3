from __future__ import annotations

from pathlib import Path

import pytest

from runsc.checks import engines
from runsc.engines.registry import ENGINES

DOCKER = ENGINES["docker"]


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("", "note", "has no runsc"),
        ("{", "note", "not JSON"),
        ('{"runtimes": {"safe": {"path": "/nowhere/runsc"}}}', "note", "cannot be run"),
    ],
)
def test_what_an_engine_does_not_know_is_told(
    tmp_path: Path, text: str, level: str, words: str
) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text)

    found = engines.known(DOCKER, str(path))

    assert (found.level, words in found.text) == (level, True)
    assert "runsc install --engine docker" in found.advice


def test_an_engine_that_knows_runsc_is_good(tmp_path: Path) -> None:
    program, path = tmp_path / "runsc", tmp_path / "daemon.json"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path.write_text(f'{{"runtimes": {{"safe": {{"path": "{program}"}}}}}}')

    assert engines.known(DOCKER, str(path)).level == "good"
    assert engines.known(DOCKER, str(tmp_path)).text.endswith("is a directory")


def test_a_machine_without_engines_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)

    assert [found.level for found in engines.engines()] == ["good"]
