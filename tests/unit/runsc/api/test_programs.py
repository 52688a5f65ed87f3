"""Programs that are started for a process that may be anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runsc.api import programs
from runsc.zygote import place


def test_a_program_finds_what_we_have_found_and_has_a_session_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runsc.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}relative{os.pathsep}")
    process = programs.begun("runsc", ["--version"], stderr=subprocess.PIPE)
    assert os.getsid(process.pid) == process.pid
    assert process.communicate() == (None, b"")
    assert process.returncode == 0


def test_relative_places_are_left_out() -> None:
    home = place.HOME
    given = {"PYTHONPATH": os.pathsep.join(["", "x", "/y", home, "/y"]), "A": "b"}
    found = programs.environment(given)

    assert found == {"A": "b", "PYTHONPATH": os.pathsep.join([home, "/y"])}
    assert (Path(home) / "runsc" / "api").is_dir()


def test_a_clone_that_is_not_built_says_so(tmp_path: Path) -> None:
    for room in ("runsc", "sentry", "kvm", "gofer", "guest_stubs"):
        sources = shutil.ignore_patterns("*.so", "__pycache__", "*.c", "built")
        shutil.copytree(Path(place.HOME, room), tmp_path / room, ignore=sources)
    code = f"from runsc import Sandbox; Sandbox.create(state={str(tmp_path / 'state')!r})"

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert f"SandboxError: runsc was found in {tmp_path}, a source folder" in done.stderr
