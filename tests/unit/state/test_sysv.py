"""System V objects of a snapshot in the namespace of a pod."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.sysvipc import IPC_CREAT, IPC_RMID
from sentry.state import sysv
from sentry.state.pages import Damaged
from tests.unit.state.test_others import Two
from tests.world import World


@pytest.fixture
def two() -> Iterator[Two]:
    with World() as made:
        yield Two(made)


def loader(two: Two, record: Any) -> Any:
    """That of a snapshot which the first container begins with."""
    kernel = two.world.kernel
    return SimpleNamespace(
        kernel=kernel, container=kernel.container,
        numbers=SimpleNamespace(of=lambda number: number + 40),
        snapshot=SimpleNamespace(ipc=record, namespaces=SimpleNamespace(ipc=[])),
        namespaces=SimpleNamespace(ipcs=list),
        rights=SimpleNamespace(creds=two.second.task.creds),
    )  # fmt: skip


def record(two: Two) -> Any:
    """Semaphores and a queue with a message, of the second container."""
    program = two.second
    program.ok("semget", 7, 2, IPC_CREAT | 0o600)
    queue = program.ok("msgget", 8, IPC_CREAT | 0o600)
    program.ok("msgsnd", queue, program.place(bytes([1]) + bytes(7) + b"hello"), 5, 0)
    made: Any = two.container.ns.ipc.made
    return sysv.save(two.saver(), made)


def test_objects_are_those_of_the_pod_and_go_again_if_not_all_can_be_loaded(two: Two) -> None:
    found = record(two)
    budget, ipc = two.world.vfs.budget, two.world.kernel.first.ipc
    before = budget.semaphores, budget.message_bytes
    objects: dict[int | None, Any] = {}
    sysv.load(loader(two, found), objects)

    assert [each.key for each in ipc.objects.semaphores.ids.objects.values()] == [7]
    queue = ipc.objects.queues.ids.by_key[8]
    assert (queue.lspid, [bytes(each.data) for each in queue.messages]) == (41, [b"hello"])
    with pytest.raises(Damaged, match="where other containers have some"):
        sysv.load(loader(two, found), {})

    two.world.run(objects[None].remove())
    assert (budget.semaphores, budget.message_bytes) == before
    assert not any(sysv.objects_of(ipc.objects))


def test_segment_that_took_the_place_of_a_restored_one_stays_another_containers(two: Two) -> None:
    """While a restore waits for memory, programs of the pod run."""
    second, first = two.second, two.world.program()
    ipc = two.world.kernel.first.ipc
    identifier = first.ok("shmget", 9, 4096, IPC_CREAT | 0o600)
    assert second.ok("shmget", 9, 4096, IPC_CREAT | 0o600) == identifier
    made: Any = two.container.ns.ipc.made
    objects = sysv.Objects(loader(two, None), sysv.save(two.saver(), made), ipc.objects)
    objects._own.extend(ipc.objects.segments.ids.objects.values())

    first.ok("shmctl", identifier, IPC_RMID, 0)
    ipc.next_ids["shm"] = identifier
    assert first.ok("shmget", 10, 8192, IPC_CREAT | 0o600) == identifier
    (other,) = ipc.objects.segments.ids.objects.values()
    record: Any = SimpleNamespace(id=identifier, flags=0)
    with pytest.raises(Damaged):
        objects.attach(record)
    objects.finish({})
    assert (other.size, other.cpid) == (8192, first.task.group.tgid)
    two.world.run(objects.remove())
    assert not other.removed
