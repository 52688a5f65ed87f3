"""What of the host runs out: it is the matter of who asked for more, and passes with it.

While exhaustion.c holds all that it can get, another process starts a program and looks at files.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, Document, execute, kvm_is_usable
from tests.e2e.processes import wait_for_state
from tests.e2e.talker import Talker
from tests.e2e.test_hostile import with_all_rights

SOURCE = Path(__file__).with_name("exhaustion.c")
NEEDS_KVM = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")
MANY = 1200
LARGE = 256 << 30
"""Twice the room that there is for files of the host."""
EVERY = 1 << 30
MEMORY_MIB = 192
OVERHEAD_MIB = 64
"""docs/usage.md: what a Sentry needs beside the limit."""


def with_folder(bundle: Bundle, folder: Path, name: str) -> None:
    program = folder / "exhaustion"
    subprocess.run(["gcc", "-O1", "-w", "-static", "-o", program, SOURCE], check=True)

    def change(document: Document) -> None:
        with_all_rights(document)
        document["mounts"] += [
            {"destination": f"/{name}", "type": "bind", "source": str(folder / name)},
            {"destination": "/exhaustion", "type": "bind", "source": str(program)},
        ]

    bundle.configure(change)


class Exhausted:
    """A sandbox in which one program holds all it could get, and others start."""

    def __init__(self, bundle: Bundle, what: str, open_files: int) -> None:
        command = bundle.args("/exhaustion", what).command()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = min(open_files, before[1])
        self.talker = Talker(["prlimit", f"--nofile={limit}:{limit}", *command])
        self.flags = command[: command.index("run")]

    def another(self, *program: str) -> str:
        done = execute([*self.flags, "exec", "test", *program])
        return done.stdout + done.stderr

    def give_back(self) -> list[str]:
        self.talker.say("go on")
        return self.talker.end()


@pytest.fixture()
def many(tmp_path: Path) -> Path:
    """A folder of files."""
    (tmp_path / "many").mkdir()
    for number in range(MANY):
        (tmp_path / "many" / str(number)).write_text("text")
    return tmp_path


@NEEDS_KVM
def test_open_files_beyond_the_hosts_limit_are_enfile_and_pass(bundle: Bundle, many: Path) -> None:
    with_folder(bundle, many, "many")
    sandbox = Exhausted(bundle, "open", 512)

    said = sandbox.talker.hear().split()
    meanwhile = sandbox.another("/bin/ls", "/many/3")
    rest = sandbox.give_back()

    assert said[0] == "full" and said[2] == "ENFILE", said
    assert 200 < int(said[1]) < 512
    assert meanwhile == "/many/3\n"
    assert rest == ["again opened", "over"]
    assert sandbox.talker.process.returncode == 0


@NEEDS_KVM
def test_mapped_files_beyond_the_hosts_limit_are_enomem_for_who_maps(
    bundle: Bundle, many: Path
) -> None:
    with_folder(bundle, many, "many")
    sandbox = Exhausted(bundle, "map", 512)

    said = sandbox.talker.hear().split()
    meanwhile = sandbox.another("/exhaustion", "nothing")
    rest = sandbox.give_back()

    assert said[0] == "full" and said[2] == "ENOMEM", said
    assert meanwhile == "over\n"
    assert rest == ["over"]


def taken_mib(pid: int) -> int:
    """What the Sentry has allocated, and the pages of RAM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(size) for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status)) >> 10


@NEEDS_KVM
def test_who_takes_the_sentrys_memory_is_killed_before_the_sum_exceeds_the_limit(
    bundle: Bundle, many: Path
) -> None:
    with_folder(bundle, many, "many")
    flags = ["--zygote=off", f"--memory={MEMORY_MIB}M"]
    command = bundle.args("/exhaustion", "hold").command(flags=flags)
    innocent = Talker(command)
    assert innocent.hear() == "full"
    pid = wait_for_state(bundle.path / "state", "test")["sentryPid"]

    attacker = Talker([*command[: command.index("run")], "exec", "test", "/exhaustion", "filters"])
    most = 0
    while attacker.hear():
        most = max(most, taken_mib(pid))
    attacker.end()
    innocent.say("go on")

    assert attacker.process.returncode == 128 + 9
    assert innocent.end() == ["over"]
    assert MEMORY_MIB // 2 < most < MEMORY_MIB + OVERHEAD_MIB


@NEEDS_KVM
def test_a_zombie_holds_no_filters(bundle: Bundle, many: Path) -> None:
    with_folder(bundle, many, "many")

    done = execute(bundle.args("/exhaustion", "zombies").command(flags=["--memory=64M"]))

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["child 329", "over"]


@NEEDS_KVM
@pytest.mark.full
def test_a_full_window_takes_nothing_from_others_but_time(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    with (tmp_path / "large" / "file").open("wb") as file:
        os.truncate(file.fileno(), LARGE)
        for at in range(0, LARGE, EVERY):
            os.pwrite(file.fileno(), (at // (64 << 20) + 1).to_bytes(8, "little"), at)
    with_folder(bundle, tmp_path, "large")
    sandbox = Exhausted(bundle, "window", 1 << 16)

    said = sandbox.talker.hear()
    meanwhile = sandbox.another("/exhaustion", "nothing")
    rest = sandbox.give_back()

    assert said == "full 0 wrong"
    assert meanwhile == "over\n"
    assert rest == ["over"]
