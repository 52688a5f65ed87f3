"""A thousand forks of a template: no two alike, nothing of it changed, nothing left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc import Sandbox, Template
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.sandboxes import made, noted, processes_of, wait_until_gone

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
FORKS, AT_ONCE = 1000, 50
HOLDS = """
import hashlib, os, sys
memory = bytearray(os.urandom(1 << 20))
kept = bytes(memory)
for line in sys.stdin:
    if line == "hash\\n":
        print(hashlib.sha256(memory).hexdigest(), hashlib.sha256(kept).hexdigest(), flush=True)
    else:
        for at in range(0, len(memory), 4096):
            memory[at] ^= 255
        boot = open("/proc/sys/kernel/random/boot_id").read().strip()
        uuid = open("/proc/sys/kernel/random/uuid").read().strip()
        print(boot, uuid, os.urandom(16).hex(), hashlib.sha256(memory).hexdigest(), flush=True)
"""


def test_a_thousand_forks(tmp_path: Path, debian: Path) -> None:
    found: list[list[str]] = []
    descriptors = os.listdir("/proc/self/fd")
    with (
        made(tmp_path, debian, forkable=True, memory=1 << 30) as sandbox,
        sandbox.commands.run(["python3", "-c", HOLDS], background=True) as handle,
    ):
        handle.send_stdin("hash\n")
        before = next(handle.stdout.lines())
        template = Template.of(sandbox)
        for _ in range(FORKS // AT_ONCE):
            forks = template.fork(AT_ONCE)
            found += [said(fork, handle.pid) for fork in forks]
            for fork in forks:
                fork.kill()
            assert noted(tmp_path) == [sandbox.sandbox_id]
        sandbox.resume()
        handle.send_stdin("hash\n")
        assert next(handle.stdout.lines()) == before
    wait_until_gone(tmp_path, sandbox.sandbox_id)

    boot_ids, uuids, random, hashes = map(set, zip(*found, strict=True))
    assert [len(each) for each in (boot_ids, uuids, random)] == [FORKS] * 3
    assert len(hashes) == 1 and not hashes & set(before.split())
    assert os.listdir("/proc/self/fd") == descriptors
    assert processes_of(sandbox.sandbox_id) == []


def said(fork: Sandbox, pid: int) -> list[str]:
    with fork.commands.connect(pid) as command:
        command.send_stdin("change\n")
        return next(command.stdout.lines()).split()
