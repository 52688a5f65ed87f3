"""The Sentry with the modules that are compiled ahead: a copy of the tree, built once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.full.once import made_once

ROOT = Path(__file__).parents[2]
BUILD_S = 3600
WEAK = """
from runsc.launch import ahead
ahead.install()
import weakref
from sentry.vfs import dentry
assert isinstance(dentry.__spec__.loader, ahead.Ahead), dentry.__spec__
from sentry.vfs.interface import Inode, Owner
inode = Inode(None, 1, 0o644, Owner(0, 0))
told = []
entries = [dentry.Dentry(None, b"x", inode) for _ in range(1000)]
weak = [weakref.ref(entry, told.append) for entry in entries]
del entries[::2]
print(len(told), sum(each() is None for each in weak))
"""
E2E = (
    "tests/e2e/test_do.py", "tests/e2e/test_fork.py", "tests/e2e/test_fork_rollback.py",
    "tests/e2e/test_own_stack_tcp.py", "tests/e2e/test_trace.py",
)  # fmt: skip

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="weak references: CPython 3.12 or newer"),
]


def build(copy: Path) -> None:
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "_ahead*", "ahead.modules")
    shutil.copytree(ROOT, copy, ignore=unwanted, symlinks=True, dirs_exist_ok=True)
    built = subprocess.run(
        [sys.executable, "ci/ahead"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-4000:]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "ahead", build)


@pytest.mark.timeout(BUILD_S)
def test_weak_references_to_what_is_gone_are_none(tree: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WEAK], cwd=tree, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("500 500\n", "")


@pytest.mark.timeout(BUILD_S)
@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize("tests", [("-k", "kvm", "tests/abi"), E2E], ids=["abi", "e2e"])
def test_programs_pass(tree: Path, tests: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as base:  # of a short name: there are sockets below it
        done = _tested(tree, base, tests)
    assert done.returncode == 0, done.stdout[-8000:]


def _tested(tree: Path, base: str, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not full"]
    command += ["--basetemp", f"{base}/base", *tests]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
