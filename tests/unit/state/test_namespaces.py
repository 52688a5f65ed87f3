"""Namespaces of an image: what no program could have made is refused."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec
import pytest

from sentry.abi import netlink as abi
from sentry.abi.capability import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from sentry.abi.sched import CLONE_NEWUSER, CLONE_NEWUTS
from sentry.abi.seccomp import SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
from sentry.abi.socket import AF_INET
from sentry.abi.time import CLOCK_BOOTTIME
from sentry.auth.credentials import Credentials
from sentry.auth.userns import NO_ID
from sentry.config import ContainerConfig, ProcessConfig
from sentry.fs.proc.id_maps import LATEST_NS
from sentry.net.interfaces import LOOPBACK_INDEX, Address, bring_up
from sentry.net.namespace import NetNamespace
from sentry.net.routes import Route
from sentry.state.namespaces import MadeNamespaces, has_plain_loopback
from sentry.state.pages import Damaged
from sentry.state.records import (
    MOST,
    ClockOffsets,
    IpcNamespace,
    MachineNames,
    Namespaces,
    NetworkNamespace,
    PidNamespace,
    UserNamespace,
    Whereabouts,
)
from sentry.state.rights import Rights
from tests.world import World

UID = 7
OWN = UserNamespace(UID, UID, uids=[(0, UID, 1)], gids=[(0, UID, 1)])


def rights(*capabilities: int, verdict: int | None = None) -> Rights:
    mask = sum(1 << each for each in capabilities)
    creds = msgspec.structs.replace(Credentials.user(UID, UID), bounding=mask)
    profile = b"" if verdict is None else struct.pack("<HBBI", 6, 0, 0, verdict)
    return Rights(ContainerConfig("", ProcessConfig((b"",), uid=UID), seccomp=profile), creds)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def test_who_has_no_rights_has_what_a_user_namespace_owns(world: World) -> None:
    found = Namespaces(
        users=[OWN], uts=[MachineNames(0, b"inside")], pids=[PidNamespace(0, numbers=[(9, 1)])],
        net=[NetworkNamespace(0), NetworkNamespace(0, is_up=True)],
        whereabouts=[Whereabouts(uts=0, pids_for_children=0)],
    )  # fmt: skip
    made = MadeNamespaces(world.kernel, found, rights())
    user, where = made.user(0), made.where(0)
    assert user is not None
    assert user.uid_map.to_kernel(0) == UID and not user.setgroups_allowed
    assert where.uts.nodename == b"inside" and where.uts.owner is user
    assert where.pids_for_children.of(9) == 1 and where.net is world.kernel.first.net
    assert list(world.kernel.pids.nested(9)) == [made.pids(0)]
    assert made.where(None) is world.kernel.first
    links = [made.stack(at).interfaces.loopback for at in (0, 1)]
    assert [each.is_up for each in links] == [False, True]
    assert made.stack(None) is world.kernel.first.net.stack
    with pytest.raises(Damaged, match="no namespace 2"):
        made.stack(2)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Namespaces(uts=[MachineNames()]), "no program of this container can make"),
        (Namespaces(uts=[MachineNames(0)]), "no namespace 0"),
        (Namespaces(users=[UserNamespace(0, 0)]), "user 0"),
        (Namespaces(users=[UserNamespace(UID, UID, uids=[(0, 0, 1)])]), "user that no program"),
        (Namespaces(users=[UserNamespace(UID, UID, gids=[(0, UID, 2)])]), "group that no program"),
        (Namespaces(users=[UserNamespace(UID, UID, parent=0)]), "too deep"),
        (Namespaces(users=[UserNamespace(UID, UID, parent=1)]), "no namespace 1"),
        (Namespaces(users=[OWN], pids=[PidNamespace(0, parent=0)]), "too deep"),
        (Namespaces(users=[OWN, *(UserNamespace(UID, UID, at) for at in range(33))]), "too deep"),
        (Namespaces(users=[UserNamespace(UID, UID, uids=[(NO_ID, UID, 1)])]), "ids that there are"),
        (Namespaces(users=[UserNamespace(UID, UID, projects=[(0, 1, NO_ID)])]), "that there are"),
        (Namespaces(users=[UserNamespace(UID, UID, projects=[(0, 0, 0)])]), "ids that there are"),
        (Namespaces(users=[OWN], pids=[PidNamespace(0, numbers=[(9, 1), (8, 1)])]), "twice"),
        (Namespaces(whereabouts=[Whereabouts(ipc=0)]), "no namespace 0"),
        (Namespaces(net=[NetworkNamespace()]), "no program of this container can make"),
        (Namespaces(ipc=[IpcNamespace()]), "no program of this container can make"),
    ],
)
def test_what_no_program_could_have_made_is_refused(
    world: World, found: Namespaces, why: str
) -> None:
    with pytest.raises(Damaged, match=why):
        MadeNamespaces(world.kernel, found, rights())


def test_no_clock_is_before_its_beginning_or_behind_its_end(world: World) -> None:
    found = Namespaces(
        users=[OWN],
        time=[ClockOffsets(0, -MOST, -MOST), ClockOffsets(0, MOST, MOST), ClockOffsets(0, 5, -7)],
        whereabouts=[Whereabouts(time=at) for at in range(3)],
    )
    made = MadeNamespaces(world.kernel, found, rights())
    early, late, usual = (made.where(at).time for at in range(3))
    clock = world.kernel.clock
    for now_ns, name in (
        (clock.now_ns(), "monotonic_ns"), (clock.shown_ns(CLOCK_BOOTTIME), "boottime_ns"),
    ):  # fmt: skip
        assert 0 <= now_ns + getattr(early, name) < 10**12
        assert now_ns + getattr(late, name) < LATEST_NS + 10**12
    assert (usual.monotonic_ns, usual.boottime_ns) == (5, -7)


def test_a_process_is_in_the_namespaces_that_it_is_said_to_be_the_first_of(world: World) -> None:
    found = Namespaces(pids=[PidNamespace(init=1, numbers=[(1, 1)])])
    made = MadeNamespaces(world.kernel, found, rights(CAP_SYS_ADMIN))
    with pytest.raises(Damaged, match="process 1 is not in its PID namespace"):
        made.settle()


def test_who_may_change_ids_maps_others() -> None:
    others = UserNamespace(0, 0, uids=[(0, 0, 1000)], gids=[(0, 0, 1000)])
    rights(CAP_SETUID, CAP_SETGID).check_maps(others)


def test_a_profile_that_forbids_them_forbids_them_to_an_image() -> None:
    rights(verdict=SECCOMP_RET_ALLOW).check_namespace(CLONE_NEWUSER, is_owned=True)
    for flag in (CLONE_NEWUSER, CLONE_NEWUTS):
        with pytest.raises(Damaged, match="profile forbids"):
            rights(verdict=SECCOMP_RET_ERRNO | 1).check_namespace(flag, is_owned=True)


def test_a_namespace_with_more_than_a_plain_loopback_interface_is_told(world: World) -> None:
    stack = NetNamespace(world.kernel, {}).stack
    assert has_plain_loopback(stack)
    bring_up(stack.interfaces.loopback)
    assert has_plain_loopback(stack)
    more = Address(AF_INET, b"\x7f\0\0\x02", 8, abi.RT_SCOPE_HOST)
    stack.interfaces.loopback.addresses.append(more)
    assert not has_plain_loopback(stack)
    stack.interfaces.loopback.addresses.remove(more)
    assert has_plain_loopback(stack)
    stack.routes.added.append(Route(AF_INET, bytes(4), 0, LOOPBACK_INDEX))
    assert not has_plain_loopback(stack)
    stack.routes.added.clear()
    stack.interfaces.loopback.mtu = 1500
    assert not has_plain_loopback(stack)
