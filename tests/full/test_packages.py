"""The files of a release: what is in them, that two builds are the same, and that each is installed
in a clean Debian, used by root and by an ordinary user, and removed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.e2e.bundle import REPOSITORY, kvm_is_usable
from tests.full.packages import BUILD_S, CODENAMES, PYTHONS, Debian, built, ok

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
            ahead = {"sentry/_ahead.modules", "sentry/_ahead.LICENSE"}
            assert names & ahead == (set() if "abi3" in path.name else ahead)
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
    inside = {each["name"] for part in parts.values() for each in part.get("components", [])}
    assert inside == {"zstd", "libffi"}
    for holder in ("Meta Platforms, Inc.", "Anthony Green, Red Hat, Inc and others"):
        assert re.search(rf"Copyright \(c\) .*{holder}", said)


def test_what_a_binary_needs_is_the_c_library(files: Path, tmp_path: Path) -> None:
    """All else would be a part that the list has to name."""
    for path in _wheels(files):
        with zipfile.ZipFile(path) as wheel:
            binaries = [name for name in wheel.namelist() if wheel.read(name)[:4] == b"\x7fELF"]
            assert {name for name in NATIVE if name.endswith(".so")} <= set(binaries)
            wheel.extractall(tmp_path / path.stem, binaries)
        for name in binaries:
            with (tmp_path / path.stem / name).open("rb") as file:
                dynamic = ELFFile(file).get_section_by_name(".dynamic")
                needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")] if dynamic else []
            assert set(needed) <= {"libc.so.6", "ld-linux-x86-64.so.2"}, (path.name, name)


@pytest.mark.parametrize("release", ["12", "13"])
def test_debian_package_has_the_parts_that_are_listed(
    release: str, files: Path, tmp_path: Path
) -> None:
    (package,) = files.glob(f"*~deb{release}u*.deb")
    ok("dpkg-deb", "-x", package, tmp_path)
    bom = json.loads((tmp_path / "usr/share/doc/runsc-python/runsc.cdx.json").read_text())
    listed = {part["name"].lower(): part["version"] for part in bom["components"]}
    listed["runsc"] = bom["metadata"]["component"]["version"]
    (site,) = tmp_path.glob("usr/lib/runsc-python/lib/python3.*/site-packages")
    there = {part.name.lower(): part.version for part in distributions(path=[str(site)])}

    assert there.items() <= listed.items()
    assert listed.keys() - there.keys() <= {"mypy"}
    assert {path.parent.name for path in site.rglob("*.so*")} - {
        path.parent.name for path in site.rglob("*.so")
    } == set()  # no library that a wheel has brought along beside its modules


@pytest.mark.alike
@pytest.mark.parametrize("version", ["3.13"])
def test_two_builds_are_the_same(version: str, files: Path, tmp_path: Path) -> None:
    elsewhere = {"TMPDIR": str(tmp_path)}
    again = tmp_path / "dist"

    ok("ci/wheels", "--afresh", again, version, env=elsewhere)
    ok("ci/deb", again, env=elsewhere)

    first, second = _digests(files), _digests(again)
    assert len(second) == 7  # source, two wheels, two Debian packages, parts, licences
    assert {name: first[name] for name in second} == second


@pytest.mark.timeout(300)
def test_what_runs_in_a_root_file_system_ends_with_who_began_it(tmp_path: Path) -> None:
    words = [REPOSITORY / "ci/packages/inside", Debian("bookworm").root, "--", "cat"]
    pipe, env = subprocess.PIPE, {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, env=env) as began:
        assert began.stdin and began.stdout
        began.stdin.write(b"there\n")
        began.stdin.flush()
        assert began.stdout.readline() == b"there\n"

        began.terminate()

        assert began.stdout.read() == b""
    assert not list(tmp_path.iterdir())


WORKS = ["6.12.0", "0", "changed warm", "42"]
"""What tests/full/installed prints of a program in a sandbox, two forks, README.md's example."""
WAYS = ("pip", "pipx", "uv")
PASSED = re.compile(r"^its tests: \d\d+ passed[^a-z]+(\d+ skipped, )?\d+ deselected in", re.M)


def _worked(said: str) -> int:
    """How often all of it did."""
    lines = [line for line in said.splitlines() if not line.startswith(("runsc version", "spec:"))]
    return sum(lines[at : at + len(WORKS)] == WORKS for at in range(len(lines)))


needs_kvm = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")


@needs_kvm
@pytest.mark.parametrize("codename", PYTHONS)
def test_wheel_is_installed_used_and_removed(codename: str, files: Path, busybox: Path) -> None:
    done = Debian(codename).call("wheels.sh", folders={"/dist": files, "/busybox": busybox})

    assert done.returncode == 0, done.stdout + done.stderr
    ways = [line for line in done.stdout.splitlines() if line.startswith("== ")]
    assert ways == [f"== {way}, {who}" for who in ("root", "guest") for way in WAYS]
    assert _worked(done.stdout) == done.stdout.count("no trace\n") == len(ways)
    assert "left: " not in done.stdout
    assert len(PASSED.findall(done.stdout)) == 2
    counts = {int(count) for count in re.findall(r"^modules compiled: (\d+)$", done.stdout, re.M)}
    (compiled,) = counts
    assert (compiled > 200) == (codename != "bookworm")


@needs_kvm
@pytest.mark.parametrize("codename", CODENAMES)
def test_source_distribution_is_built_used_and_removed(codename: str, files: Path) -> None:
    done = Debian(codename).call("sdist.sh", folders={"/dist": files})

    assert done.returncode == 0, done.stdout + done.stderr
    assert _worked(done.stdout) == 1
    assert done.stdout.endswith("no trace\n")


@needs_kvm
@pytest.mark.parametrize("codename", CODENAMES)
def test_debian_package_is_installed_used_and_removed(
    codename: str, files: Path, busybox: Path
) -> None:
    done = Debian(codename).call("deb.sh", folders={"/dist": files, "/busybox": busybox})

    assert done.returncode == 0, done.stdout + done.stderr
    assert _worked(done.stdout) == 2
    assert len(PASSED.findall(done.stdout)) == 1
    said = done.stdout.splitlines()
    for line in (
        "installed install ok installed", "bash: checkpoint", "fish: checkpoint", "zsh: checkpoint",
        "/usr/share/man/man1/runsc-do.1.gz", "no trace",
    ):  # fmt: skip
        assert said.count(line) == 1, line
    for line in ("the unit's socket is the zygote's", "activated by its socket"):
        assert said.count(line) == 2, line
    assert not [line for line in said if "page of" in line]
