"""File systems that programs serve, or lay over others: scripts say the same here and on Linux."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.abi.test_abi import PROGRAMS, compile_program
from tests.conftest import rootfs_of
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.installed import Installed

SCRIPTS = Path(__file__).parent / "served"

CAPABILITIES = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_DAC_READ_SEARCH"]

AREAS = ("files_", "errors_order_files", "memory_map", "exec_")
OTHERWISE = {"files_caps", "files_overlay", "files_partial", "files_acct", "files_propagation"}
"""Programs that Linux lets fail here by chance or otherwise: user namespaces of a chroot, the part
of a write before bad memory, what has nothing to do with the file system they are on."""

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_served_files_are_the_same_as_on_linux(script: str, tmp_path: Path) -> None:
    Installed(tmp_path, rootfs_of("fuse"), SCRIPTS, CAPABILITIES).compare(script)


def test_podman_and_buildah_inside_use_fuse_overlayfs(tmp_path: Path) -> None:
    there = Installed(tmp_path, rootfs_of("fuse"), SCRIPTS, CAPABILITIES)
    seen = "0\nfuse.fuse-overlayfs\nnew\nbin\ndev\netc\nnew\nproc\nrun\nsys\ntmp\n"

    done = there.inside("/bin/bash", "/mnt/engines.bash")

    assert (done.returncode, done.stdout) == (0, seen + "built\n" + seen), done.stderr


def test_podman_and_buildah_inside_use_overlays(tmp_path: Path) -> None:
    there = Installed(tmp_path, rootfs_of("fuse"), SCRIPTS, CAPABILITIES)
    seen = "0\noverlay\nnew\nbin\ndev\netc\nnew\nproc\nrun\nsys\ntmp\n"

    done = there.inside("/bin/bash", "/mnt/engines.bash", "kernel")

    assert (done.returncode, done.stdout) == (0, seen + "built\n"), done.stderr


def test_calls_on_served_files_end_as_on_linux(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "programs").mkdir()
    for name in PROGRAMS:
        if name.startswith(AREAS) and name not in OTHERWISE:
            compile_program(name, scripts / "programs")

    said = Installed(tmp_path, rootfs_of("fuse"), scripts, CAPABILITIES).compare("calls.bash")

    assert "files_copy: \n" in said and "memory_map: \n" in said
