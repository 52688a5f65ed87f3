"""runsc.providers against the real packages, which are installed for this alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, kvm_is_usable

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "runsc"


def _python(extra: str) -> Path:
    """One of an environment that has the package; kept, as ci/test keeps its own."""
    wanted = EXTRAS[extra]
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    name = f"{extra}-{version}-{sha256(repr(wanted).encode()).hexdigest()[:12]}"
    folder = CACHE / "providers" / name
    python = folder / "bin/python"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "-q", *wanted, "cffi>=2", "click>=8.1", "msgspec"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"{extra} cannot be installed here: {done.stderr[-300:]}")
        (folder / "done").touch()
    return python


@pytest.mark.parametrize(
    ("extra", "script"), [("openai-agents", "agents_sdk.py"), ("inspect-ai", "inspect_ai_.py")]
)
def test_the_real_package_works_with_our_sandboxes(
    tmp_path: Path, debian: Path, extra: str, script: str
) -> None:
    done = subprocess.run(
        [_python(extra), REPOSITORY / "tests/full/providers" / script, debian, tmp_path / "state"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, cwd=tmp_path, capture_output=True,
        text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr[-6000:]
