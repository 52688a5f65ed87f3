"""The files of a release: what is in them, that two builds are the same, and the Debian package in
a clean Debian 12 and 13: installed, used by root and by an ordinary user, and removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable
from tests.full.packages import BUILD_S, CODENAMES, Debian, built, ok

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
    pytest.mark.timeout(2 * BUILD_S),
]
ROOMS = ("runsc", "kvm", "sentry", "gofer", "guest_stubs")
NATIVE = (
    "gofer/_native.abi3.so", "kvm/_kvm.abi3.so", "runsc/_native.abi3.so",
    "sentry/platform/_native.abi3.so", "sentry/platform/_unicorn.abi3.so",
    "runsc/launch/built/pause", "runsc/launch/built/stand_in", "runsc/launch/built/oom_victim",
    "guest_stubs/built/entry_ring3.bin", "guest_stubs/built/vdso.so",
)  # fmt: skip
PLACES = (b"/build/", b"/source/", b"/env/", b"/tmp/pip", os.fsencode(REPOSITORY) + b"/")
"""Where they are built."""


@pytest.fixture(scope="module")
def files() -> Path:
    return built()


def _wheels(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.whl"))


def _sources() -> set[str]:
    listed = ok("git", "ls-files", *ROOMS).split("\n")
    return {name for name in listed if name.endswith((".py", ".conf", ".cil", ".typed"))}


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir() if path.name != "SHA256SUMS"
    }  # fmt: skip


def test_there_is_a_wheel_for_every_python_and_compiled_ones(files: Path) -> None:
    tags = {path.stem.split("-", 2)[2] for path in _wheels(files)}

    assert "cp311-abi3-manylinux_2_36_x86_64" in tags
    assert {f"cp3{minor}-cp3{minor}-manylinux_2_36_x86_64" for minor in (13, 14)} <= tags


def test_wheels_have_all_and_do_not_say_where_they_were_built(files: Path) -> None:
    wanted = {name for name in _sources() if "/_build" not in name} | set(NATIVE)
    for path in _wheels(files):
        with zipfile.ZipFile(path) as wheel:
            names = set(wheel.namelist())
            assert wanted <= names, wanted - names
            assert ("sentry/_ahead.modules" in names) == ("abi3" not in path.name)
            assert not [name for name in names if name.endswith((".c", ".h", ".S", ".lds"))]
            for name in names:
                data = wheel.read(name)
                if not name.endswith((".py", ".md", "METADATA")):
                    assert not [place for place in PLACES if place in data], (path.name, name)


def test_source_distribution_has_what_is_committed(files: Path) -> None:
    committed = set(ok("git", "ls-files").split("\n")) - {""}
    (path,) = files.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {name for name in committed - names if not name.startswith(".ci/")} == set()


def test_parts_are_listed_with_their_licences(files: Path) -> None:
    (listed,) = files.glob("*.cdx.json")
    bom = json.loads(listed.read_text())
    (texts,) = files.glob("*-licences.txt")
    said = texts.read_text()

    assert bom["metadata"]["component"]["purl"].startswith("pkg:pypi/runsc@")
    parts = {part["name"]: part for part in bom["components"]}
    assert {"cffi", "click", "msgspec", "mypy", "jeepney", "dnspython"} <= parts.keys()
    for name, part in parts.items():
        assert part["licenses"], name
        assert f"\n{name} {part['version']}: " in said


@pytest.mark.parametrize(("codename", "version"), [("trixie", "3.13")])
def test_two_builds_are_the_same(codename: str, version: str, files: Path, tmp_path: Path) -> None:
    elsewhere = {"TMPDIR": str(tmp_path)}
    again = tmp_path / "dist"

    ok("ci/wheels", again, version, env=elsewhere)
    ok("ci/deb", again, codename, env=elsewhere)

    first, second = _digests(files), _digests(again)
    assert len(second) == 6  # source, two wheels, a Debian package, parts, licences
    assert {name: first[name] for name in second} == second


WORKS = ["6.12.0", "0", "changed warm"]
"""What the scripts of tests/full/installed print of a program in a sandbox and of two forks."""


def _worked(said: str) -> int:
    """How often all of it did."""
    lines = [line for line in said.splitlines() if not line.startswith(("runsc version", "spec:"))]
    return sum(lines[at : at + len(WORKS)] == WORKS for at in range(len(lines)))


needs_kvm = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")


@needs_kvm
@pytest.mark.parametrize("codename", CODENAMES)
def test_debian_package_is_installed_used_and_removed(codename: str, files: Path) -> None:
    done = Debian(codename).call("deb.sh", folders={"/dist": files})

    assert done.returncode == 0, done.stdout + done.stderr
    assert _worked(done.stdout) == 2
    for line in ("installed install ok installed", "the unit's socket is the zygote's", "no trace"):
        assert line in done.stdout
