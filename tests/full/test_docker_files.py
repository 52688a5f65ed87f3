"""docker's commands on the files of a container, whose root keeps what is written to it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full.docker import NO_BRIDGE, Docker, needs_docker
from tests.full.runtimes import is_there

pytestmark = [pytest.mark.full, pytest.mark.root, needs_docker, is_there]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Docker]:
    """The builder, too, keeps what is written."""
    settings = {**NO_BRIDGE, "default-runtime": "keeping"}
    made = Docker(tmp_path_factory.mktemp("keeping"), busybox, (), settings)
    yield made
    made.stop()


@pytest.fixture
def wrote(docker: Docker) -> Iterator[str]:
    """A container that has written a file, and runs."""
    yield docker.detached("wrote", script="echo new >/etc/made; echo up; exec sleep 1000")
    docker.ok("rm", "--force", "wrote")


@pytest.mark.row("what was written is there after `stop`, `start`")
def test_what_was_written_is_there_after_stop_and_start(docker: Docker, wrote: str) -> None:
    docker.ok("exec", wrote, "sh", "-c", "echo later >/etc/later")
    docker.ok("stop", "--time=0", wrote)
    docker.ok("start", wrote)

    assert docker.ok("exec", wrote, "cat", "/etc/made", "/etc/later") == "new\nlater"


@pytest.mark.row("`cp` out of a running container")
def test_cp_from_a_running_container(docker: Docker, wrote: str, tmp_path: Path) -> None:
    docker.ok("cp", f"{wrote}:/etc/made", str(tmp_path / "out"))

    assert (tmp_path / "out").read_text() == "new\n"


@pytest.mark.row("`cp` into a running container")
def test_cp_into_a_running_container(docker: Docker, wrote: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given\n")

    docker.ok("cp", str(tmp_path / "in"), f"{wrote}:/etc/given")

    assert docker.ok("exec", wrote, "cat", "/etc/given") == "given"


@pytest.mark.row("`cp`, both ways, of a stopped container")
def test_cp_of_a_stopped_container(docker: Docker, wrote: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given\n")
    docker.ok("stop", "--time=0", wrote)

    docker.ok("cp", f"{wrote}:/etc/made", str(tmp_path / "out"))
    docker.ok("cp", str(tmp_path / "in"), f"{wrote}:/etc/given")
    docker.ok("start", wrote)

    assert (tmp_path / "out").read_text() == "new\n"
    assert docker.ok("exec", wrote, "cat", "/etc/given") == "given"


@pytest.mark.row("`commit`")
def test_commit_makes_an_image_of_it(docker: Docker, wrote: str) -> None:
    docker.ok("commit", wrote, "committed")

    assert docker.run("committed", "cat", "/etc/made").stdout == "new\n"


@pytest.mark.row("`diff`")
def test_diff_names_what_has_changed(docker: Docker, wrote: str) -> None:
    docker.ok("exec", wrote, "rm", "/bin/yes")

    shown = docker.ok("diff", wrote).splitlines()

    assert {"A /etc/made", "D /bin/yes"} <= set(shown)


@pytest.mark.row("`export`")
def test_export_has_what_was_written(docker: Docker, wrote: str) -> None:
    command = ["docker", f"--host=unix://{docker.socket}", "export", wrote]
    data = subprocess.run(command, capture_output=True, check=True).stdout

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        made = tar.extractfile("etc/made")
        assert made is not None
        assert made.read() == b"new\n"


@pytest.mark.row("`build`")
def test_build_runs_its_steps(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("copied\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM bb\nCOPY word /word\nRUN cat /word >/etc/made && id -u >>/etc/made\n"
        'CMD ["cat", "/etc/made"]\n'
    )

    docker.ok("build", "--network=none", "--tag=built", str(tmp_path))

    assert docker.run("built").stdout == "copied\n0\n"
