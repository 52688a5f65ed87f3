"""The plug-in of pytest: docs/pytest.md's examples in a run of their own, and what goes wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, kvm_is_usable

PAGE = REPOSITORY / "docs" / "pytest.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
BUSYBOX = """
import pytest
@pytest.fixture(scope="session")
def sandbox_options():
    return {{"root": {root!r}, "state": {state!r}}}
"""

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


def _run(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "runsc.pytest_plugin", "-p",
         "no:cacheprovider", "-p", "no:xdist", "-W", "error", "--strict-markers", "-c", "/dev/null",
         f"--rootdir={folder}", f"--basetemp={folder}/base", str(folder)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


ELSEWHERE = """
from runsc.api import states
states.default_root = lambda: {state!r}  # where others look for a zygote none begins
"""


def test_the_examples_of_the_page_pass(tmp_path: Path) -> None:
    elsewhere = ELSEWHERE.format(state=str(tmp_path / "state"))
    (tmp_path / "conftest.py").write_text(elsewhere)
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"test_{number}.py").write_text(block)
    code, said = _run(tmp_path)
    assert code == 0, said
    assert f"{len(BLOCKS)} passed" in said


FAILING = """
import pytest
from runsc import CpuLimitExceeded, Limits

@pytest.mark.sandbox("words")
def test_no_words(sandbox): pass

@pytest.mark.sandbox(root="/none")
def test_no_root(sandbox): pass

@pytest.mark.sandbox(limits=Limits(cpu=0.1))
class TestNearest:
    @pytest.mark.sandbox(limits=None, env={"A": "b"})
    def test_the_nearest_mark_wins(self, sandbox):
        assert sandbox.commands.run("echo $A").stdout == "b\\n"

def test_nothing_is_lost_in_many_calls_and_the_end_of_a_sandbox_is_told(sandbox):
    sandbox.commands.run("i=0; while [ $i -lt 300 ]; do : </etc/hosts; i=$((i+1)); done")
    assert len(sandbox.syscalls.opened("/etc/hosts")) + sandbox.syscalls.lost >= 300
    sandbox.kill()
    assert sandbox.syscalls.count("open*") + sandbox.syscalls.lost >= 300

def test_relative_paths(sandbox):
    sandbox.commands.run("cd /etc && cat hosts; cd /; cat etc/../etc/hosts")
    assert len(sandbox.syscalls.opened("/etc/hosts")) == 2
"""


@pytest.mark.full
def test_marks_failures_and_ends(tmp_path: Path, busybox: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILING)
    conftest = BUSYBOX.format(root=str(busybox), state=str(tmp_path / "state"))
    (tmp_path / "conftest.py").write_text(conftest)
    code, said = _run(tmp_path)
    assert code == 1
    assert "3 passed, 2 errors" in said, said
    assert "takes options by their names" in said
    assert "/none" in said
    left = [path.name for path in (tmp_path / "state").iterdir() if path.name != ".lock"]
    assert left == []
