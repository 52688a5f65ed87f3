"""Every program of this folder: it passes on the host's Linux, on kvm, and on unicorn.

Those about the network are for the Sentry's own; the host's is that of tests/e2e/test_network_host.

A program that needs what unicorn cannot do (AVX, parallel threads) says so in its first lines:
`/* platforms: native kvm */`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from runsc import host
from runsc.oci.convert import CAPABILITIES
from sentry.abi.prctl import PR_SET_TIMERSLACK
from tests.e2e.bundle import Bundle, Document, kvm_is_usable

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(path.stem for path in HERE.glob("*.c"))


def compile_program(name: str, folder: Path) -> Path:
    """Compile one program, or take it from $ABI_PROGRAMS, for a machine without a compiler."""
    if made := os.environ.get("ABI_PROGRAMS"):
        return Path(made) / name
    target = folder / name
    source = HERE / f"{name}.c"
    subprocess.run(
        ["gcc", "-O1", "-w", "-static", "-pthread", "-o", target, source, "-lm"], check=True
    )
    return target


def wants(name: str, platform: str) -> None:
    """Skip a platform that the program does not name."""
    head = (HERE / f"{name}.c").read_text()[:400]
    found = re.search(r"platforms: ([a-z ]+)", head)
    if found and platform not in found[1].split():
        pytest.skip(f"{name} is for {found[1].strip()}")


def with_everything(document: Document) -> None:
    """Every capability, a working directory in memory, a root that can be written."""
    names = sorted(CAPABILITIES)
    sets = ("bounding", "effective", "permitted")
    document["process"]["capabilities"] = dict.fromkeys(sets, names)
    document["process"]["cwd"] = "/tmp"
    document["process"]["noNewPrivileges"] = False
    document["process"]["rlimits"] = []
    document["process"]["env"].append("HOME=/root")
    document["root"]["readonly"] = False
    document["hostname"] = "test"


@pytest.fixture
def program(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the test's own of what one of all workers has compiled, for its three turns."""
    if "ABI_PROGRAMS" in os.environ:
        return compile_program(name, tmp_path)
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    known = folder / f"abi-{name}"
    if not known.exists():
        compile_program(name, tmp_path).rename(known)
    return Path(shutil.copy(known, tmp_path / name))


@pytest.mark.parametrize("name", PROGRAMS)
def test_abi_program_passes_natively(program: Path, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    host.prctl(PR_SET_TIMERSLACK, 0)  # as before a test opened a platform, of which it is inherited
    command: list[str | Path] = ["env", "--default-signal", "HOST_KERNEL=yes"]
    # who is in the background ignores some signals
    if program.name.startswith("net_") and os.geteuid() == 0:  # others take ports that it lets go
        command += ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0"']
    command.append(program)
    done = subprocess.run(
        command, cwd=tmp_path / "cwd", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("platform", ["kvm", "unicorn"])
def test_abi_program_passes(
    name: str, platform: str, program: Path, tmp_path: Path, busybox: Path
) -> None:
    wants(name, platform)
    if platform == "kvm" and not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    bundle = Bundle(tmp_path / "bundle", busybox).args(f"/abi/{name}").configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": f"/abi/{name}", "source": str(program), "options": ["bind", "ro"]}
    )
    flags = ["--network=none"]
    log = tmp_path / "log"
    log.touch()
    if "CPU_IS_EMULATED" in os.environ:  # its steps may take a second, of which the log tells
        flags.append(f"--log={log}")
    done = bundle.run(platform, flags=flags)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + log.read_text()
    assert "BUG" not in log.read_text()
