"""Files that a program serves to its sandboxes, mapped: programs, libraries, stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from runsc.fs import MemoryFileSystem
from tests.abi.test_abi import compile_program
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.sandboxes import made

PLATFORMS = [
    pytest.param("kvm", marks=[
        pytest.mark.kvm, pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used"),
    ]),
    "unicorn",
]  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
def test_mappings_and_programs_are_as_on_linux(
    platform: str, tmp_path: Path, busybox: Path
) -> None:
    """What tests/abi shows of Linux's file systems; and what was stored comes to the server."""
    served = MemoryFileSystem()
    served.put("/memory_file", compile_program("memory_file", tmp_path).read_bytes(), 0o755)
    with made(tmp_path, busybox, platform, mounts={"/data": served}) as sandbox:
        result = sandbox.commands.run("./memory_file", cwd="/data")
        assert (result.exit_code, result.stderr) == (0, "")
        assert served.get("/ended")[4096:].startswith(b"stored last\0")
