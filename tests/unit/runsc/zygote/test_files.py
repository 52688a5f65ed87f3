"""Whether files of the program have changed."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from runsc import host
from runsc.launch import ahead
from runsc.zygote import files, place
from runsc.zygote.files import Files


def test_those_of_the_program_are_those_that_are_imported() -> None:
    found = files.stamps()

    assert files.__file__ in found
    assert os.path.dirname(files.__file__) in found
    assert all(name.startswith(place.HOME) for name in found if name != sys.executable)


def test_what_was_compiled_ahead_is_known_by_its_source_and_by_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ahead, "compiled", lambda: frozenset({"runsc.host"}))
    monkeypatch.setattr(host, "__file__", f"{place.HOME}/none.so")

    found = files.stamps()

    assert {ahead.source("runsc.host"), ahead.LIBRARY, os.path.dirname(ahead.LIBRARY)} <= set(found)
    assert host.__file__ not in found


def test_an_update_of_the_interpreter_is_one_of_the_program() -> None:
    assert sys.executable in files.stamps()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with two folders, which is all that is imported."""
    home = tmp_path / "home"
    inner = home / "runsc" / "inner"
    inner.mkdir(parents=True)
    paths = [home / "runsc", inner, home / "runsc" / "a.py", inner / "b.py"]
    for path in paths[2:]:
        path.write_text("1")
    monkeypatch.setattr(
        files, "stamps", lambda: {str(path): files.stamp(str(path)) for path in paths}
    )
    return home


@pytest.fixture(params=["told", "looked at"])
def watched(
    request: pytest.FixtureRequest, program: Path, monkeypatch: pytest.MonkeyPatch
) -> Files:
    """Also where there are no more instances."""

    def none() -> NoReturn:
        raise OSError(errno.EMFILE, "too many")

    if request.param == "looked at":
        monkeypatch.setattr(host, "notify", none)
    return Files({})


def test_nothing_has_changed_until_something_has(watched: Files, program: Path) -> None:
    assert not watched.have_changed()
    (program / "runsc" / "a.py").read_text()
    assert not watched.have_changed()
    (program / "runsc" / "inner" / "b.py").write_text("two")
    assert watched.have_changed()
    assert watched.have_changed()


def test_what_comes_and_goes_in_a_folder_is_a_change(watched: Files, program: Path) -> None:
    (program / "runsc" / "inner" / "c.py").write_text("")
    assert watched.have_changed()


def test_a_time_that_is_set_is_a_change(watched: Files, program: Path) -> None:
    os.utime(program / "runsc" / "a.py", (1, 1))
    assert watched.have_changed()


def test_another_place_by_the_same_name_is_a_change(watched: Files, program: Path) -> None:
    program.rename(program.parent / "old")
    assert watched.have_changed()


def test_what_has_changed_while_it_was_imported_is_a_change(program: Path) -> None:
    before = files.stamps()
    os.utime(program / "runsc" / "a.py", (1, 1))
    assert Files(before).have_changed()


def test_what_may_be_imported_is_all_that_is_imported_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what is changed before it is looked at is not taken for what was imported."""
    found = files.importable()
    modules = {path for path in files.stamps() if path.endswith(files.MODULES)}
    rooms = tuple(f"{place.HOME}/{package}/" for package in files.PACKAGES)
    assert {path for path in modules if path.startswith(rooms)} <= found.keys()
    late = place.HOME + "/runsc/commands/spec.py"
    assert late in found and found[late] == files.stamp(late)
    module = tmp_path / "runsc" / "late.py"
    module.parent.mkdir()
    module.write_text("1")
    monkeypatch.setattr(place, "HOME", str(tmp_path))
    before = files.importable()
    module.write_text("two")
    monkeypatch.setattr(files, "stamps", lambda: {str(module): files.stamp(str(module))})
    assert Files(before).have_changed()
