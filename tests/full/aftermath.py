"""What is looked at after a process of ours has been killed: what commands say, what is left.

The test is a subreaper (prctl(2)): whatever its commands leave running is its child, and so known.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runsc.containers import snapshots
from sentry.abi.prctl import PR_SET_CHILD_SUBREAPER
from tests.e2e import processes
from tests.e2e.bundle import REPOSITORY, Bundle
from tests.e2e.client import Client
from tests.e2e.killer import Plan, Report
from tests.patience import TIMEOUT_S

PATIENCE_S = 120
"""More than any command takes for its answer (runsc.containers.lifecycle), on a busy machine."""
ROLES = {
    "sentry": "runsc-sentry:",
    "gofer": "runsc-gofer:",
    "network": "runsc-network:",
    "dialer": "runsc-dialer:",
    "janitor": "runsc-janitor:",
    "oom": "runsc: oom",
    "stand-in": "runsc: ",
}
"""How the title of each process begins."""
CODES = {0, 1, 3, 137, 143, 255}
GOFER_ENDED = "the gofer process has ended: so does the sandbox"
"""The Sentry's word, before that of a command which finds no sandbox then."""
NO_SENTENCE = re.compile(r"Traceback|Error\b|Exception|\[Errno")
PROGRAM = "trap 'exit 3' TERM; echo hello; sleep 1000 & wait"

OTHERS: set[int] = set()
"""Children of this process that are no affair of a test here, as multiprocessing's tracker."""


@contextmanager
def adopting() -> Iterator[None]:
    """Orphans of ours become children of this process, which may have others already."""
    libc = ctypes.CDLL(None)
    OTHERS.update(children())
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        for pid in children():  # of a test that has failed
            os.kill(pid, signal.SIGKILL)
        reap_all()
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        OTHERS.clear()


def children(pid: int | str = "self") -> list[int]:
    """Of this process, zombies too; not those of tests before."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return [child for child in found if child not in OTHERS]


def title(pid: int) -> str:
    """What ps shows."""
    try:
        folder = Path(f"/proc/{pid}")
        words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return words.strip() or (folder / "comm").read_text().strip()
    except OSError:
        return ""


def status_of(pid: int) -> int:
    """The wait(2) status of a child, which must end in time."""
    pidfd = os.pidfd_open(pid)
    try:
        ended = select.select([pidfd], [], [], PATIENCE_S)[0]
    finally:
        os.close(pidfd)
    assert ended, f"hangs: {title(pid)}: {Path(f'/proc/{pid}/stack').read_text()}"
    return os.waitpid(pid, 0)[1]


def reap_all() -> None:
    """Every child ends, and what it leaves to us."""
    deadline = time.monotonic() + TIMEOUT_S
    while children():
        for pid in children():
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        assert time.monotonic() < deadline, [(pid, title(pid)) for pid in children()]
        select.select([], [], [], 0.01)


def check_words(code: int, text: str) -> None:
    """A command ended with this code, and this is all that it wrote, or its program."""
    lines = [line for line in text.splitlines() if line and line != "hello"]
    assert code in CODES, (code, text)
    assert not NO_SENTENCE.search(text), text
    if code in (1, 255):
        assert len(lines) == 1 or (len(lines) == 2 and lines[0] == GOFER_ENDED), (code, text)


class Scene:
    """A state root with containers, and what must not be left of them."""

    def __init__(self, folder: Path, rootfs: Path, platform: str = "kvm") -> None:
        self.folder = folder
        self.rootfs = rootfs
        self.names: dict[str, str] = {}
        self.bundles: dict[str, Bundle] = {}
        self.client = Client(self._bundle("bundle", "C"), platform)
        self.root = folder / "state"
        self.client.flags = [f"--root={self.root}", f"--platform={platform}"]
        self._shared = set(os.listdir("/dev/shm"))
        self._outputs = itertools.count()
        self._images = itertools.count()
        (folder / "tmp").mkdir()

    def _bundle(self, name: str, letter: str) -> Bundle:
        container_id = f"moment-{os.getpid()}-{time.monotonic_ns()}"
        bundle = Bundle(self.folder / name, self.rootfs).args("sh", "-c", PROGRAM)
        bundle.document["linux"]["cgroupsPath"] = f"/{container_id}"
        bundle.document["linux"]["resources"] = {"memory": {"limit": 256 << 20}}
        self.names[letter] = container_id
        self.names[chr(ord(letter) - 1)] = f"--bundle={bundle.path}"
        self.bundles[letter] = bundle
        return bundle

    @property
    def bundle(self) -> Bundle:
        """That of the container that is looked at."""
        return self.bundles["C"]

    @property
    def id(self) -> str:
        """Its name."""
        return self.names["C"]

    def words(self, command: str) -> list[str]:
        """The whole command line of `exec C echo hello`: B is the bundle of the container C, I the
        folder of a new snapshot."""
        if "I" in command.split():
            self.names["I"] = f"--image-path={self.folder}/images/{next(self._images)}"
        for bundle in self.bundles.values():
            path = bundle.path / "config.json"
            if not path.exists() or json.loads(path.read_text()) != bundle.document:
                bundle.write()
        return self.client.command(*(self.names.get(word, word) for word in command.split()))

    def output(self) -> Path:
        """A file that gets what a command says: of a pipe, a sandbox would keep the other end."""
        return self.folder / "tmp" / f"{next(self._outputs)}.out"

    def at_once(self, *commands: str) -> list[tuple[int, str]]:
        """Commands to their ends: of each its code, and what it wrote, which makes sense."""
        paths = [self.output() for _ in commands]
        begun = []
        for command, path in zip(commands, paths, strict=True):
            with path.open("w") as out:
                process = subprocess.Popen(
                    self.words(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    cwd=REPOSITORY,
                )  # fmt: skip
            begun.append(process)
        found = []
        for process, path in zip(begun, paths, strict=True):
            process.returncode = os.waitstatus_to_exitcode(status_of(process.pid))
            text = path.read_text(errors="replace")
            path.unlink()
            check_words(process.returncode, text)
            found.append((process.returncode, text))
        return found

    def call(self, command: str) -> tuple[int, str]:
        """One."""
        return self.at_once(command)[0]

    def ok(self, *commands: str) -> str:
        """Commands that must succeed; what the last one wrote."""
        text = ""
        for command in commands:
            code, text = self.call(command)
            assert code == 0, (command, text)
        return text

    def status(self) -> str:
        """What `state` says; "" if there is no container."""
        code, text = self.call("state C")
        return str(json.loads(text)["status"]) if code == 0 else ""

    def wait_until_stopped(self) -> None:
        """A killed process is not gone at once, nor are those that hear of it."""
        deadline = time.monotonic() + TIMEOUT_S
        while (word := self.status()) != "stopped":
            assert time.monotonic() < deadline, word

    def pids(self) -> dict[str, int]:
        """Of the container's processes, by role."""
        state = self.state("C")
        found = {"stand-in": state["pid"], "gofer": state["goferPid"]}
        found["sentry"] = self.state("S" if "S" in self.names else "C")["sentryPid"]
        for pid in children():
            for role in ("network", "dialer", "janitor"):
                if title(pid) == f"{ROLES[role]} {self.id}":
                    found[role] = pid
        return found

    def state(self, letter: str) -> dict[str, Any]:
        """What is on disk."""
        text = (self.root / self.names[letter] / "state.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found

    def traced(self, command: str, plan: Plan) -> tuple[Report, int, str]:
        """A command below the killer: what that reports, its wait(2) status, what it wrote."""
        path = self.output()
        path.touch()  # it may be killed before it has opened that
        plan.command, plan.output, plan.cwd = self.words(command), str(path), str(REPOSITORY)
        report = processes.killed(plan)
        status = report.status if report.status >= 0 else status_of(report.pid)
        text = path.read_text(errors="replace")
        path.unlink()
        return report, status, text

    def add_pod(self) -> None:
        """The container C is one of a pod whose sandbox is that of S, which runs."""
        self._bundle("pod", "S")
        for letter, kind in (("S", "sandbox"), ("C", "container")):
            self.bundles[letter].document["annotations"] = {
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.sandbox-id": self.names["S"],
            }
        volume = {"destination": "/v", "source": str(self.folder / "tmp"), "options": ["bind"]}
        self.bundle.document["mounts"].append(volume)
        self.ok("create R S", "start S")

    def check_images(self) -> None:
        """A snapshot is whole, or none."""
        for manifest in self.folder.glob("images/*/manifest.json"):
            found = snapshots.opened(str(manifest.parent), 1 << 30, background=False)
            assert os.fstat(found.objects_fd).st_size == found.objects_size
            for fd in found.fds():
                os.close(fd)

    def check_nothing_left(self) -> None:
        """No process, mount, cgroup, network namespace, file, socket."""
        reap_all()
        assert [name for name in os.listdir(self.root) if name != ".lock"] == []
        assert list((self.folder / "tmp").iterdir()) == []
        for bundle in self.bundles.values():
            assert os.listdir(bundle.path) == ["config.json"]
            name = bundle.document["linux"].get("cgroupsPath", self.id).strip("/")
            assert list(Path("/sys/fs/cgroup").glob(f"**/{name}")) == []
        assert processes.mounts(self.folder) == []
        assert str(self.root) not in Path("/proc/net/unix").read_text()
        assert not [n for n in set(os.listdir("/dev/shm")) - self._shared if "runsc" in n]


def labels(titles: dict[str, str]) -> dict[str, str]:
    """Who is who among the processes that a command has made: by role, the names of `killer`."""
    found = {"command": "0"}
    for label, text in sorted(titles.items()):
        for role, begin in ROLES.items():
            if text.startswith(begin):
                found.setdefault(role if role not in found else f"{role}-2", label)
                break
    return found
