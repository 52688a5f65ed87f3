"""A release is built of what is pinned, and says one version everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import runsc

ROOT = Path(__file__).parents[3]
PINS = ROOT / "ci" / "packages"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEBIAN = ("systemd", "network", "images")
"""Extras that the Debian package has."""


def _names(lines: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if not line.startswith("#"))
    return {re.sub(r"[._-]+", "-", name[0]).lower() for name in found if name}


def _wanted(name: str) -> list[str]:
    return (PINS / f"{name}.in").read_text().splitlines()


def test_version_is_the_same_everywhere() -> None:
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)

    assert newest and newest[1] == PROJECT["project"]["version"] == runsc.__version__


@pytest.mark.parametrize("name", ["build", "tools", "run"])
def test_each_library_is_pinned_with_its_hashes(name: str) -> None:
    text = re.sub(r"\\\n\s*", " ", (PINS / f"{name}.txt").read_text())
    lines = [line for line in text.splitlines() if not line.startswith("#")]

    assert _names(_wanted(name)) <= _names(lines)
    assert [line for line in lines if not re.search(r"==\S+ .*--hash=sha256:", line)] == []


def test_debian_package_has_what_is_needed_and_its_extras() -> None:
    project = PROJECT["project"]
    wanted = _names(project["dependencies"])
    for extra in DEBIAN:
        wanted |= _names(project["optional-dependencies"][extra])

    assert _names(_wanted("run")) == wanted


def test_wheels_are_built_of_what_pyproject_asks_for() -> None:
    assert _names(PROJECT["build-system"]["requires"]) <= _names(_wanted("build"))


def test_units_name_the_socket_that_users_ask_and_not_the_builds(tmp_path: Path) -> None:
    asks = re.search(r"^zygote=.*$", (PINS / "make_deb").read_text(), re.M)
    assert asks is not None
    program = tmp_path / "runsc"
    program.write_text('#!/bin/sh\necho "/run/runsc/zygote@$PYTHONHASHSEED"\n')
    program.chmod(0o755)

    said = subprocess.run(
        ["bash", "-c", f"{asks[0]}; echo $zygote"],
        env={"PATH": "/usr/bin:/bin", "runsc": str(program), "PYTHONHASHSEED": "0"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    assert said == "zygote@\n"


@pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap")
@pytest.mark.parametrize(
    ("says", "code", "told"),
    [
        ("E: Unable to locate package python3.12", 0, "no Debian has CPython 3.12\n"),
        ("E: apt-get update failed", 1, "E: apt-get update failed\n"),
    ],
)
def test_a_mirror_that_fails_is_not_a_debian_without_it(
    tmp_path: Path, says: str, code: int, told: str
) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text(f"#!/bin/sh\necho '{says}'; exit 1\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path)}

    done = subprocess.run(
        [PINS / "cpythons", tmp_path / "root", "3.12"], env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (code, told)
