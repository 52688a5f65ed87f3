"""Which roots need no Gofer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.errors import RuntimeFailure
from runsc.launch.boot import Terms
from runsc.launch.image import alone
from runsc.oci.convert import Container
from runsc.oci.exports import Export
from sentry.config import ProcessConfig, RootConfig, SandboxConfig

PROGRAM = ProcessConfig((b"true",))
CONFIG = SandboxConfig("c1", PROGRAM, RootConfig(is_image=True))


def container(path: Path, *more: Export, is_image: bool = True) -> Container:
    """One whose root lies there."""
    root = RootConfig(is_image=is_image)
    exports = (Export(str(path), False, is_file=is_image), *more)
    return Container(PROGRAM, root, (), (), "", "", (), (), (), exports)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "root.erofs"
    made.write_bytes(b"image")
    return made


def test_image_alone_is_open_to_be_read(file: Path) -> None:
    fd = alone(container(file), CONFIG, Terms()).root.image_fd
    try:
        assert os.read(fd, 10) == b"image"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_what_needs_a_gofer_has_one(file: Path, tmp_path: Path) -> None:
    folder = Export(str(tmp_path), True)
    assert alone(container(file, folder), CONFIG, Terms()) is CONFIG
    assert alone(container(file), CONFIG, Terms(before_gofer=lambda: "")) is CONFIG
    assert alone(container(tmp_path, is_image=False), CONFIG, Terms()) is CONFIG


def test_what_is_no_file_any_more_is_refused(file: Path) -> None:
    file.unlink()
    with pytest.raises(RuntimeFailure, match="no such file"):
        alone(container(file), CONFIG, Terms())
    os.mkfifo(file)
    with pytest.raises(RuntimeFailure, match="no file any more"):
        alone(container(file), CONFIG, Terms())
