"""A root file system that is an image in a file: EROFS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.unit.fs.erofs.images import Builder, of_folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    made = tmp_path_factory.mktemp("image") / "root.erofs"
    made.write_bytes(Builder(of_folder(busybox)).build())
    return made


def test_programs_run_from_an_image_and_write_over_it(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    script = "echo new > /etc/new; cat /etc/new; mv /etc/passwd /moved; cat /moved"
    done = Bundle(tmp_path / "bundle", image).args("sh", "-c", script).run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("new\nroot")
    assert image.read_bytes() == before


def test_image_without_a_layer_is_read_only(image: Path, tmp_path: Path) -> None:
    script = "touch /new 2>&1; grep ' / ' /proc/mounts"
    bundle = Bundle(tmp_path / "bundle", image).args("sh", "-c", script)
    done = bundle.run(flags=["--overlay2=none"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "Read-only file system" in done.stdout
    assert " / overlay ro," in done.stdout  # for the places that mounts need


def test_annotations_of_gvisor_name_an_image(image: Path, tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "bundle", tmp_path).args("cat", "/etc/passwd")
    prefix = "dev.gvisor.spec.rootfs."
    bundle.document["annotations"] = {f"{prefix}type": "erofs", f"{prefix}source": str(image)}
    done = bundle.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "root" in done.stdout


def test_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(bytes(10_000))
    done = Bundle(tmp_path / "bundle", tmp_path / "root").args("true").run()
    assert done.returncode != 0
    assert "no image of EROFS" in done.stderr
