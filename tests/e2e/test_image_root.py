"""A root file system that is an image in a file: EROFS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e import processes
from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Bundle, execute
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


def test_image_alone_takes_no_gofer(image: Path, tmp_path: Path) -> None:
    script = "head -n1 /etc/passwd; echo new > /new; cat /new; ls /mnt"
    bundle = Bundle(tmp_path / "bundle", image).args("sh", "-c", script)
    bundle.document["mounts"].append({"type": "tmpfs", "source": "none", "destination": "/mnt"})
    done = bundle.run(flags=["--debug"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("root")
    assert done.stdout.endswith("\nnew\n")
    assert "gofer: none" in done.stderr
    assert "gofer: serves" not in done.stderr


def test_image_beside_a_bind_mount_has_a_gofer(image: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    bundle = Bundle(tmp_path / "bundle", image).args("sh", "-c", "echo kept > /mnt/kept")
    mount = {"type": "bind", "source": str(tmp_path / "volume"), "destination": "/mnt"}
    bundle.document["mounts"].append(mount | {"options": ["rbind"]})
    done = bundle.run(flags=["--debug"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "volume" / "kept").read_text() == "kept\n"
    assert done.stderr.count("gofer: serves") == 2


def state_of(bundle: Bundle) -> dict[str, int]:
    """state.json once it names the processes."""
    path = bundle.path / "state" / "test" / "state.json"
    while True:
        state: dict[str, int] = json.loads(path.read_text())
        if "sentryPid" in state:
            return state
        time.sleep(0.001)


def _gofers(cli: int) -> list[int]:
    """Children of a command line that wait to become one: they have its own words."""
    words = Path(f"/proc/{cli}/cmdline").read_bytes()
    children = Path(f"/proc/{cli}/task/{cli}/children").read_text().split()
    return [int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes() == words]


@pytest.mark.parametrize("victim", ["stand-in", "sentry"])
def test_container_of_an_image_leaves_nothing_when_it_is_killed(
    image: Path, tmp_path: Path, victim: str
) -> None:
    bundle = Bundle(tmp_path / "bundle", image).args("sh", "-c", "echo ready; sleep 1000")
    cli = subprocess.Popen(
        bundle.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert cli.stdout is not None
    assert cli.stdout.readline() == "ready\n"
    state = state_of(bundle)
    assert not state.get("goferPid")
    assert _gofers(cli.pid) == []
    pids = {"cli": cli.pid, "stand-in": state["pid"], "sentry": state["sentryPid"]}
    pidfds = {name: os.pidfd_open(pid) for name, pid in pids.items()}

    signal.pidfd_send_signal(pidfds[victim], signal.SIGKILL)

    assert processes.all_end(pidfds)
    _, errors = cli.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in errors
    assert processes.becomes_empty(bundle.path / "state")


def test_container_of_an_image_is_made_started_and_deleted(image: Path, tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "bundle", image).args("sh", "-c", "sleep 1000")
    runsc = [*RUNSC, f"--root={tmp_path / 'state'}"]

    def command(*words: str) -> str:
        done = execute([*runsc, *words])
        assert (done.returncode, done.stderr) == (0, ""), words
        return done.stdout

    created = subprocess.run(
        [*runsc, "create", f"--bundle={bundle.write()}", "test"], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False,
        cwd=REPOSITORY,
    )  # fmt: skip
    assert created.returncode == 0
    command("start", "test")
    assert json.loads(command("state", "test"))["status"] == "running"
    assert command("exec", "test", "cat", "/etc/passwd").startswith("root")
    command("sync", "test")
    command("delete", "--force", "test")
    assert not (tmp_path / "state" / "test").exists()


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
    assert "root is neither a directory nor an image" in done.stderr
