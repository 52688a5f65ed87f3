"""What a process leaves: nothing that only the collector of cycles would find."""

from __future__ import annotations

import gc

import pytest

from sentry.abi.keyctl import (
    KEY_SPEC_PROCESS_KEYRING,
    KEY_SPEC_THREAD_KEYRING,
    KEYCTL_GET_KEYRING_ID,
    KEYCTL_JOIN_SESSION_KEYRING,
)
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUTS,
)
from tests.world import Program, World

EVERYTHING = (
    CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWTIME
    | CLONE_NEWUTS
)  # fmt: skip


def live(parent: Program) -> None:
    """A child goes to namespaces of its own, makes things there, ends, and is waited for."""
    child = parent.fork()
    child.ok("unshare", EVERYTHING)
    child.ok("shmget", 0, 4096, 0o1666)
    child.ok("msgget", 0, 0o1666)
    child.ok("keyctl", KEYCTL_JOIN_SESSION_KEYRING, 0)
    for ring in (KEY_SPEC_THREAD_KEYRING, KEY_SPEC_PROCESS_KEYRING):
        child.ok("keyctl", KEYCTL_GET_KEYRING_ID, ring, 1)
    child.begin("exit_group", 0)
    parent.world.settle()
    parent.ok("wait4", -1, 0, 0, 0)


def test_a_process_leaves_no_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        parent = world.program()
        live(parent)  # what is made when first needed
        while gc.collect():  # what a finalizer touches of older tests' worlds goes a round later
            pass
        gc.disable()
        try:
            live(parent)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = {type(o).__qualname__ for o in gc.garbage if _is_ours(o)}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

        assert left == set()
        assert len(world.kernel.pids.tasks) == 2
        assert world.vfs.budget.ipc_namespaces == 1


def _is_ours(found: object) -> bool:
    return type(found).__module__.startswith("sentry.")
