"""Programs that take as much of one thing as they can get: the Sentry lives, and gets it back.

With little memory, so that most meet the limit of it (they are killed, or get ENOMEM) before the
ceiling of their kind.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from runsc.oci.convert import CAPABILITIES
from tests.e2e.bundle import TIMEOUT_S, Bundle, Document, execute, kvm_is_usable
from tests.e2e.processes import wait_for_state
from tests.e2e.talker import Talker

SOURCE = Path(__file__).with_name("hostile.c")
MEMORY_MIB = 96
SLACK_MIB = 64
"""What the Sentry may have allocated beyond the limit before it looks, and keeps afterwards."""
MORE = (
    "forks", "unix_bytes", "xattrs", "semaphores", "messages", "watches", "queued_signals", "aio",
)  # fmt: skip
ATTACKS = (
    "pipe_bytes", "inodes", "anonymous", "filled_buffers", "page_tables", "shared",
    "tmpfs_bytes", "root_bytes", "memfd_bytes", "segment_bytes",
    *(pytest.param(n, marks=pytest.mark.full) for n in MORE),
)  # fmt: skip


def with_all_rights(document: Document) -> None:
    process = document["process"]
    names = sorted(CAPABILITIES)
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    process["noNewPrivileges"] = False
    process["rlimits"] = []
    document["root"]["readonly"] = False


class Attacked:
    """A sandbox in which hostile.c waits for orders."""

    def __init__(self, bundle: Bundle, folder: Path, memory: str) -> None:
        program = folder / "hostile"
        subprocess.run(
            ["gcc", "-O1", "-w", "-static", "-pthread", "-o", program, SOURCE], check=True
        )
        bundle.configure(with_all_rights)
        bundle.document["mounts"] += [
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/hostile", "type": "bind", "source": str(program)},
        ]
        self.log = folder / "debug.log"
        flags = ["--debug", f"--debug-log={self.log}", f"--memory={memory}", "--network=none"]
        self.command = bundle.args("/hostile").command(flags=flags)
        self.main = Talker(self.command)
        assert self.main.hear() == "ready"
        self.pid = wait_for_state(bundle.path / "state", "test")["sentryPid"]

    def attack(self, name: str) -> str:
        """What the attacker says in the end, or "killed"."""
        self.main.say(name)
        return self.main.hear()

    def end_attack(self) -> None:
        self.main.say("end")
        assert self.main.hear() == "over", self.log.read_text()[-4000:]

    def anonymous_mib(self) -> int:
        """What the Sentry has allocated."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) >> 10

    def _debug(self, what: str) -> str:
        before = self.command[: self.command.index("run")]
        return execute([*before, "debug", what, "test"]).stdout

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._debug("--counts"))
        return found

    def stacks(self) -> str:
        return self._debug("--stacks")


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ATTACKS)
def test_sentry_outlives_who_takes_all_it_can_get(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    sandbox = Attacked(bundle, tmp_path, f"{MEMORY_MIB}M")
    before_mib, before = sandbox.anonymous_mib(), sandbox.counts()

    said = sandbox.attack(name)
    grown_mib = sandbox.anonymous_mib() - before_mib
    sandbox.end_attack()
    kinds = ("tasks", "processes", "ram_spaces", "anonymous", "fibers", "mappings")
    deadline = time.monotonic() + TIMEOUT_S  # it is given back in steps, beside programs
    while [(after := sandbox.counts())[kind] for kind in kinds] != [before[kind] for kind in kinds]:
        assert time.monotonic() < deadline, (before, after, sandbox.stacks())
    log = sandbox.log.read_text()
    sandbox.main.end()

    assert said == "killed" or said.split()[-1] in ("ENOMEM", "EAGAIN", "ENOSPC", "ENFILE"), said
    assert grown_mib < MEMORY_MIB + SLACK_MIB
    assert "BUG" not in log, log[:4000]
