"""Where a zygote listens, and whether that place is the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runsc.containers.names import check_id
from runsc.errors import RuntimeFailure
from runsc.zygote import place

PATHS = os.environ.get("PYTHONPATH", "")


def test_no_container_can_have_the_name_of_the_socket() -> None:
    with pytest.raises(RuntimeFailure):
        check_id(os.path.basename(place.socket_path()))


def test_another_interpreter_has_another_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = place.socket_path()

    monkeypatch.setattr("sys.executable", "/usr/bin/another")

    assert place.socket_path() != ours


@pytest.mark.parametrize(
    ("name", "text"),
    [("PYTHONPATH", "/other"), ("PYTHONHASHSEED", "7"), ("LD_PRELOAD", "/other.so")],
)
def test_variables_of_the_interpreter_are_another_program(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = place.socket_path()

    monkeypatch.setenv(name, text)

    assert place.socket_path() != ours


def test_where_the_package_lies_and_where_one_stands_is_no_other_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = place.program()
    for paths in (f"{place.HOME}:{PATHS}", f"{PATHS}:.:{place.HOME}", f"{PATHS}:relative:"):
        monkeypatch.setenv("PYTHONPATH", paths)
        assert place.program() == ours


def test_an_update_of_the_interpreter_keeps_the_socket_but_is_another_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, program = place.socket_path(), place.program()

    monkeypatch.setattr("sys.version", "3.13.99 (main)")

    assert place.socket_path() == path
    assert place.program() != program


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_callers_language_makes_no_difference(locale: str) -> None:
    code = "from runsc.zygote import place; print(place.program())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "LC_ALL": locale, "PYTHONPATH": f"{place.HOME}:{PATHS}"},
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout == f"{place.program()!r}\n"


@pytest.mark.parametrize(("mode", "own"), [(0o700, True), (0o755, True), (0o720, False)])
def test_a_folder_that_others_may_write_to_is_not_own(
    mode: int, own: bool, tmp_path: Path
) -> None:
    tmp_path.chmod(mode)

    assert place.is_own(str(tmp_path)) == own


def test_what_is_no_folder_or_another_users_is_not_own(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(foreign, 12345, 12345)
        assert not place.is_own(str(foreign))

    assert not place.is_own(str(link))
    assert not place.is_own(str(tmp_path / "absent"))
