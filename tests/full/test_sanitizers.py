"""The unit, contract and fuzz tests once more, with all C under AddressSanitizer and UBSan.

A copy of the tree gets modules that `ci/build.py --sanitize` made. The first finding ends the
process that has it, and so fails its test. RUNSC_SECOND_PYTHON says with which interpreter: all of
`ci/test --full` has these tests run on a second one thereby.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.full.once import made_once

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("RUNSC_SECOND_PYTHON", sys.executable)
LEFT_OUT = (
    "tests/unit/gofer/test_confine.py",  # a filter that knows no system calls of the sanitizer
    "tests/unit/ci/test_site.py",  # an interpreter in an environment of its own, without it
    "tests/unit/runsc/commands/test_completion.py",  # the same
    "tests/unit/platform/test_memory.py::"  # of glibc's malloc
    "test_a_megabyte_that_is_free_is_allocated_again_without_new_pages",
)
OPTIONS = {
    # Leaks are the interpreter's, at its end; what is too large is a MemoryError as without it.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def build(copy: Path) -> None:
    unwanted = shutil.ignore_patterns(".*", "*.so", "__pycache__", "build", "built", "bin")
    shutil.copytree(ROOT, copy, ignore=unwanted, symlinks=True, dirs_exist_ok=True)
    command = [PYTHON, str(ROOT / "ci" / "build.py"), "--sanitize", str(copy)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "sanitized", build)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_every_module_is_instrumented(tree: Path) -> None:
    modules = sorted(tree.rglob("*.abi3.so"))
    assert [module.stem for module in modules].count("_native.abi3") == 3 and len(modules) == 5
    for module in modules:
        assert b"__asan_init" in module.read_bytes() and b"__ubsan_" in module.read_bytes()


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_no_test_makes_the_c_code_do_what_is_undefined(tree: Path) -> None:
    asan = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip()
    options = ["-q", "-n", "2", "-m", "not full", "--timeout", "600", "-p", "no:cacheprovider"]
    for test in LEFT_OUT:
        options += ["--deselect", test]
    done = subprocess.run(
        [PYTHON, "-m", "pytest", *options, "tests/unit", "tests/contract", "tests/fuzz"],
        check=False,
        cwd=tree,
        env={**os.environ, **OPTIONS, "LD_PRELOAD": asan, "RUNSC_TEST_AGAIN": "yes"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:]
