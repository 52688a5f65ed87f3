"""podman's commands on the files of a container, whose root keeps what is written to it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full.podman import IMAGE, Podman, needs_podman
from tests.full.runtimes import is_there

pytestmark = [pytest.mark.full, pytest.mark.root, needs_podman, is_there]


@pytest.fixture
def wrote(keeping_podman: Podman) -> Iterator[str]:
    """A container that has written a file, and runs."""
    yield keeping_podman.detached("wrote", script="echo new >/etc/made; echo up; exec sleep 1000")
    keeping_podman.remove("wrote")


@pytest.mark.row("what was written is there after `stop`, `start`")
def test_what_was_written_is_there_after_stop_and_start(
    keeping_podman: Podman, wrote: str
) -> None:
    keeping_podman.ok("exec", wrote, "sh", "-c", "echo later >/etc/later")
    keeping_podman.ok("stop", "--time=0", wrote)
    keeping_podman.ok("start", wrote)

    assert keeping_podman.ok("exec", wrote, "cat", "/etc/made", "/etc/later") == "new\nlater"


@pytest.mark.row("`cp` out of a running container", gvisor="not found")
def test_cp_from_a_running_container(keeping_podman: Podman, wrote: str, tmp_path: Path) -> None:
    keeping_podman.ok("cp", f"{wrote}:/etc/made", str(tmp_path / "out"))

    assert (tmp_path / "out").read_text() == "new\n"


@pytest.mark.row("`cp` into a running container", gvisor="read-only file system")
def test_cp_into_a_running_container(keeping_podman: Podman, wrote: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given\n")

    keeping_podman.ok("cp", str(tmp_path / "in"), f"{wrote}:/etc/given")

    assert keeping_podman.ok("exec", wrote, "cat", "/etc/given") == "given"


@pytest.mark.row("`cp`, both ways, of a stopped container")
def test_cp_of_a_stopped_container(keeping_podman: Podman, wrote: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given\n")
    keeping_podman.ok("stop", "--time=0", wrote)

    keeping_podman.ok("cp", f"{wrote}:/etc/made", str(tmp_path / "out"))
    keeping_podman.ok("cp", str(tmp_path / "in"), f"{wrote}:/etc/given")
    keeping_podman.ok("start", wrote)

    assert (tmp_path / "out").read_text() == "new\n"
    assert keeping_podman.ok("exec", wrote, "cat", "/etc/given") == "given"


@pytest.mark.row("`commit`")
def test_commit_makes_an_image_of_it(keeping_podman: Podman, wrote: str) -> None:
    keeping_podman.ok("commit", "-q", wrote, "localhost/committed")

    assert keeping_podman.run("localhost/committed", "cat", "/etc/made").stdout == "new\n"


@pytest.mark.row("`diff`")
def test_diff_names_what_has_changed(keeping_podman: Podman, wrote: str) -> None:
    keeping_podman.ok("exec", wrote, "rm", "/bin/yes")

    shown = keeping_podman.ok("diff", wrote).splitlines()

    assert {"A /etc/made", "D /bin/yes"} <= set(shown)


@pytest.mark.row("`export`")
def test_export_has_what_was_written(keeping_podman: Podman, wrote: str) -> None:
    data = subprocess.run(
        [*keeping_podman.command, "export", wrote], capture_output=True, check=True
    ).stdout

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        made = tar.extractfile("etc/made")
        assert made is not None
        assert made.read() == b"new\n"


@pytest.mark.row("`build`", gvisor="fails at the end of a RUN step")
def test_build_runs_its_steps(keeping_podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("copied\n")
    (tmp_path / "Containerfile").write_text(
        f"FROM {IMAGE}\nCOPY word /word\nRUN cat /word >/etc/made && id -u >>/etc/made\n"
        'CMD ["cat", "/etc/made"]\n'
    )
    limits = ("--ulimit=nofile=1000:1000", "--ulimit=nproc=1000:1000")
    flags = ("--network=none", "--isolation=oci", "--tag=localhost/built", *limits)

    keeping_podman.ok("build", *flags, str(tmp_path))

    assert keeping_podman.run("localhost/built").stdout == "copied\n0\n"
