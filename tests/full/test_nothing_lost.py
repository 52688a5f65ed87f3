"""A root that is written behind: what is there when something ends at a random moment.

The Sentry is killed, the Gofer, the host's disk is copied as it is (as if the host had stopped just
then), or gets full. A program carries out a history of changes (`history.c`), so what is found is
compared with the folder as it was after each line of that. RUNSC_TEST_LOST_SEED: another history;
RUNSC_TEST_LOST_TIMES: how often something ends (200).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.bundle import KEPT, REPOSITORY, Bundle, kvm_is_usable
from tests.e2e.processes import wait_for_state
from tests.full.history import (
    Folder,
    Look,
    lasting,
    look,
    lost_texts,
    script,
    tree_of,
    walk,
)

SEED = int(os.environ.get("RUNSC_TEST_LOST_SEED", "1"))
FLAGS = (KEPT,)
PLATFORM = "kvm" if kvm_is_usable() else "unicorn"
LINES = 200_000
TIMES = int(os.environ.get("RUNSC_TEST_LOST_TIMES", "200"))
CRASHES, KILLS, FULL = TIMES, TIMES, TIMES // 4
SOURCE = Path(__file__).with_name("history.c")

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("program") / "history"
    subprocess.run(["gcc", "-O1", "-static", "-o", made, SOURCE], check=True)
    return made


def mounted(image: Path, place: Path, ends: ExitStack, *options: str) -> Path:
    """A file system in a file."""
    place.mkdir()
    words = ",".join(("loop", *options))
    subprocess.run(["mount", "-o", words, str(image), str(place)], check=True)
    device = f"/sys/dev/block/{os.major(place.stat().st_dev)}:{os.minor(place.stat().st_dev)}"

    def end() -> None:
        subprocess.run(["umount", str(place)], check=True)
        while _behind(device) == str(image):  # the kernel lets go of it when it likes
            time.sleep(0.001)

    ends.callback(end)
    return place


def _behind(device: str) -> str:
    """The file of a loop device."""
    try:
        return Path(device, "loop/backing_file").read_text().rstrip()
    except OSError:
        return ""


def ext4(image: Path, size: int) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    return image


class Running:
    """A sandbox whose program carries out a history in its root."""

    def __init__(self, folder: Path, root: Path, program: Path, lines: list[str]) -> None:
        self.lines = lines
        self.files = root / "history"
        self.files.mkdir()
        shutil.copy(program, root / "program")
        (root / "script").write_text("".join(f"{line}\n" for line in lines))
        for name in ("proc", "dev", "sys"):
            (root / name).mkdir()
        if root.is_mount():  # a disk of its own: it has what begins
            subprocess.run(["sync", "--file-system", root], check=True)
        self.bundle = Bundle(folder / "bundle", root).args("/program", "/script")
        self._out = folder / "out"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                self.bundle.command(PLATFORM, FLAGS), stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
            )  # fmt: skip

    def told(self) -> int:
        """How many lines are done for certain: the next one has begun."""
        with self._out.open("rb") as out:
            out.seek(max(0, self._out.stat().st_size - 64))
            text = out.read(64)
        return int(text.rpartition(b"\n")[0].rpartition(b"\n")[2].split()[0]) if text else 0

    def wait_for(self, line: int) -> dict[str, int]:
        """Until it has come so far: the sandbox's state."""
        while self.told() < line:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.001)
        state: dict[str, int] = wait_for_state(self.bundle.path / "state", "test")
        return state

    def errors(self) -> dict[int, int]:
        """Lines that failed, and why."""
        said = [line.split() for line in self._out.read_text().splitlines()]
        return {int(words[0]): int(words[1]) for words in said if len(words) == 2}

    def end(self) -> str:
        """However it ends: what `run` said."""
        _, error = self.process.communicate()
        return error


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("victim", ["sentry", "gofer"])
def test_sandbox_killed_at_a_random_moment(tmp_path: Path, program: Path, victim: str) -> None:
    """Of a killed Sentry all is there; of a killed Gofer what was made to last, at least."""
    chance = random.Random(f"{SEED} {victim}")
    lines = script(chance, 5000)
    certain = lasting(lines)
    for number in range(KILLS):
        folder = tmp_path / str(number)
        root = folder / "root"
        root.mkdir(parents=True)
        running = Running(folder, root, program, lines)
        state = running.wait_for(chance.randint(1, 2000))
        os.kill(state[f"{victim}Pid"], signal.SIGKILL)
        running.end()
        begun = running.told()
        told = min([begun, *running.errors()])  # it goes on without a Gofer for a while
        first = told if victim == "sentry" else certain[told]
        found = look(running.files, first, begun + 1, told)
        problems = list(walk(lines, [found])) + lost_texts(found, synced=victim == "gofer")
        assert not problems, (number, told)
        shutil.rmtree(folder)


def test_host_that_stops_at_a_random_moment(
    tmp_path: Path, program: Path, ends: ExitStack
) -> None:
    """The disk is a file on XFS, which copies it in one moment (FICLONE)."""
    chance = random.Random(f"{SEED} host")
    outer = tmp_path / "outer"
    with outer.open("wb") as file:
        file.truncate(2 << 30)
    subprocess.run(["mkfs.xfs", "-q", outer], check=True)
    place = mounted(outer, tmp_path / "place", ends)
    disk = ext4(place / "disk", 64 << 20)
    root = mounted(disk, tmp_path / "root", ends, "commit=1")
    running = Running(tmp_path, root, program, script(chance, LINES))
    state = running.wait_for(1)
    moments: list[tuple[int, int]] = []
    for number in range(CRASHES):
        until = time.monotonic() + chance.uniform(0.01, 0.3)
        while time.monotonic() < until:
            assert running.process.poll() is None, running.process.communicate()
            time.sleep(0.001)
        told = running.told()
        subprocess.run(["cp", "--reflink=always", disk, place / str(number)], check=True)
        moments.append((told, running.told() + 1))
    os.kill(state["sentryPid"], signal.SIGKILL)
    running.end()

    looks: list[Look] = []
    certain = lasting(running.lines[: moments[-1][1]])
    for number, (told, last) in enumerate(moments):
        with ExitStack() as copy:
            found = mounted(place / str(number), tmp_path / f"copy-{number}", copy)
            looks.append(look(found / "history", certain[told], last, told))
    problems = list(walk(running.lines, looks))
    assert not problems, "\n".join(problems)
    assert not [lost for each in looks for lost in lost_texts(each, synced=True)]
    print(f"{CRASHES} copies, {moments[-1][1]} lines")


def test_disk_that_gets_full_at_a_random_moment(tmp_path: Path, program: Path) -> None:
    """A call says so, or at the latest a sync; what was told as done is there."""
    chance = random.Random(f"{SEED} full")
    refused = told_late = 0
    for number in range(FULL):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ExitStack() as ends:
            disk = ext4(folder / "disk", 8 << 20)
            root = mounted(disk, folder / "root", ends)
            lines = [*script(chance, 3000), "y"]
            running = Running(folder, root, program, lines)
            running.wait_for(chance.randint(1, 1500))
            with (root / "filler").open("wb") as filler:
                _fill(filler.fileno())
                running.wait_for(min(running.told() + chance.randint(1, 1000), len(lines) - 1))
            os.unlink(root / "filler")
            assert running.process.wait() == 0, running.end()
            running.end()
            errors = running.errors()
            refused += len(errors)
            late = {line for line in errors if lines[line][0] in "fy"}
            told_late += bool(late)
            names = {name for line in lines for name in line.split()[1:3]}
            found = tree_of(running.files)
            assert {name.rpartition("/")[2] for name in found} <= {
                name.rpartition("/")[2] for name in names
            }
            if not late:
                folder_then = Folder()
                for line, text in enumerate(lines):
                    folder_then.do(line, text, failed=line in errors)
                assert found == folder_then.tree(), number
        subprocess.run(["e2fsck", "-fn", disk], check=True, capture_output=True)
    print(f"{refused} lines refused, in {told_late} of {FULL} by a sync")


def _fill(fd: int) -> None:
    """All that the file system has left."""
    for size in (1 << 16, 1 << 12):
        data = bytes(size)
        while True:
            try:
                os.write(fd, data)
            except OSError:
                break
        os.fsync(fd)
