"""Bundles and hosts that are wrong: what the caller is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.bundle import RUNSC, Bundle, execute


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not JSON"),
        ("{}", "Object missing required field `ociVersion` - at `$`"),
        ('{"ociVersion": "1.2.0"}', "process property must not be empty - at `$.process`"),
        (
            '{"ociVersion": "1.2.0", "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", '
            '"args": ["a", 5]}}',
            "Expected `str`, got `int` - at `$.process.args[1]`",
        ),
    ],
)
def test_malformed_document_is_reported_with_its_json_path(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(text)

    result = execute([*RUNSC, f"--root={tmp_path}/state", "run", f"--bundle={tmp_path}", "x"])

    assert result.returncode == 1
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "state").exists()


def test_missing_root_is_reported(bundle: Bundle) -> None:
    bundle.document["root"]["path"] = "nowhere"

    result = bundle.run()

    assert result.returncode == 1
    assert f"invalid rootfs: stat {bundle.path}/nowhere: no such file or directory" in result.stderr


@pytest.mark.root
@pytest.mark.parametrize(
    ("hide", "message"),
    [
        ("mount -t tmpfs none /dev", "/dev/kvm is not there"),
        ("mount --bind /dev/null /dev/kvm", "/dev/kvm is not KVM's device"),
    ],
)
def test_without_kvm_the_other_platform_is_named(
    bundle: Bundle, tmp_path: Path, hide: str, message: str
) -> None:
    if "/dev/kvm" in hide and not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm to hide")
    keep = "mknod /dev/null c 1 3; chmod 666 /dev/null;" if "tmpfs" in hide else ""
    script = f'{hide} && {keep} exec "$@"'

    result = execute(["unshare", "--mount", "sh", "-c", script, "sh", *bundle.command("kvm")])

    assert result.returncode == 1
    assert message in result.stderr
    assert "--platform=unicorn" in result.stderr


def test_terminal_without_a_terminal_is_refused(bundle: Bundle) -> None:
    bundle.document["process"]["terminal"] = True

    result = bundle.run("unicorn")

    assert result.returncode == 1
    assert "provided file is not a console" in result.stderr
