"""Values below /proc/sys, with which a snapshot begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.fcntl import AT_FDCWD
from sentry.auth.credentials import Credentials
from sentry.boot.restoring import _set_sysctls, _write
from sentry.boot.tree import Exports, Starter, make_mount, write_value
from sentry.config import MountConfig
from sentry.fs.proc.sysctl import get_sysctl
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.container import Container
from sentry.kernel.namespaces import beside
from sentry.kernel.sysv_ids import IpcObject
from sentry.state.saving import Saving
from sentry.vfs.walk import resolve
from sentry.wait.again import again
from tests.world import World

RIGHTS: Any = SimpleNamespace(most=Credentials.root(), has=lambda _: False)
FORWARD = "net/ipv4/ip_forward"


@pytest.fixture
def starter(world: World) -> Starter:
    """Of a further container, whose network is its own."""
    kernel, container = world.kernel, Container()
    root = world.vfs.new_mount(TmpFs.make(world.vfs))
    container.ns = beside(kernel, container, root, (b"second", b""), {})
    made = Starter(kernel, container)
    world.run(make_mount(made, MountConfig(b"/proc", "proc"), Exports(kernel, None)))
    return made


def write(world: World, starter: Starter, name: str, value: str) -> None:
    path = b"/proc/sys/" + name.encode()
    place = world.run(again(resolve, starter, AT_FDCWD, path))
    world.run(write_value(starter, place, value))


def test_value_that_another_network_has_is_set_in_this_one(world: World, starter: Starter) -> None:
    world.kernel.services.sysctls[FORWARD] = "1"
    write(world, starter, FORWARD, "0")  # the bundle's

    world.run(_set_sysctls(starter, RIGHTS, {FORWARD: "1"}))

    assert starter.ns.net.sysctls[FORWARD] == "1"


def test_what_narrows_comes_last_and_in_the_order_in_which_it_was_written(
    world: World, starter: Starter
) -> None:
    ratio, kbytes, swappiness = "vm/overcommit_ratio", "vm/overcommit_kbytes", "vm/swappiness"
    kernel, limit = world.kernel, world.kernel.vfs.budget.mount_max
    for name, value in (
        (ratio, "30"), (kbytes, "500"), (ratio, "40"), ("fs/mount-max", "1"),
        ("fs/nr_open", "1000000"), ("fs/nr_open", "1048577"), (swappiness, "7"),
    ):  # fmt: skip
        write(world, starter, name, value)
    written = dict(kernel.services.sysctls)
    assert list(written) == [kbytes, ratio, "fs/mount-max", "fs/nr_open", swappiness]
    kernel.services.sysctls.clear()
    kernel.vfs.budget.mount_max, kernel.vfs.descriptors.nr_open = limit, 1 << 20
    commitment = kernel.platform.ram.commitment
    commitment.ratio, commitment.kbytes = 50, 0

    last = world.run(_set_sysctls(starter, RIGHTS, written))

    values = [get_sysctl(kernel, name) for name in (swappiness, "fs/nr_open", "fs/mount-max")]
    assert values == ["7", "1048577", str(limit)]
    world.run(_write(starter, RIGHTS, last))
    assert get_sysctl(kernel, "fs/mount-max") == "1"
    assert (commitment.ratio, commitment.kbytes) == (40, 0)


def test_value_that_excludes_another_is_set_though_the_bundle_has_set_it(
    world: World, starter: Starter
) -> None:
    ratio, kbytes = "vm/overcommit_ratio", "vm/overcommit_kbytes"
    write(world, starter, ratio, "40")  # the bundle's

    last = world.run(_set_sysctls(starter, RIGHTS, {kbytes: "500", ratio: "40"}))
    world.run(_write(starter, RIGHTS, last))

    commitment = world.kernel.platform.ram.commitment
    assert (commitment.ratio, commitment.kbytes) == (40, 0)


def test_next_identifier_of_a_further_container_is_in_its_own_snapshot_until_it_is_used(
    world: World, starter: Starter
) -> None:
    name, kernel = "kernel/msg_next_id", world.kernel
    write(world, starter, name, "70")

    def saved(container: Container) -> dict[str, str]:
        others = SimpleNamespace(shared=frozenset())
        saver = SimpleNamespace(first=container.ns, others=others)
        of: Any = SimpleNamespace(_kernel=kernel, _container=container, saver=saver)
        return Saving._sysctls(of)

    further = starter.container
    assert name not in saved(kernel.container)
    assert saved(further) == {name: "70"}
    further.ns.ipc.next_ids.clear()
    world.run(_set_sysctls(starter, RIGHTS, {name: "70"}))
    assert further.ns.ipc.next_ids == {"msg": 70}
    table, used = further.ns.ipc.objects.queues.ids, IpcObject(Credentials.root(), 0, 0)
    assert table.add(used, 100) == 70
    table.remove(used)
    assert saved(further) == {}
