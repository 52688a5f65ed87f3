"""Which network forks have, of what is said and what there is."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from runsc.containers.processes import start_time
from runsc.containers.state import NAMESPACE, ORIGIN, TEMPLATE, State
from runsc.errors import RuntimeFailure
from runsc.launch import isolation
from runsc.launch.forked_networks import EMPTY, Network, check_alone, of, wanted

OWN = "/proc/self/ns/net"


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "is_privileged", lambda: True)


def container(network: str = "sandbox") -> State:
    return State("1.2.0", "c", "/bundle", pid=os.getpid(), network=network)


def a_fork(network: str = "sandbox", path: str = "") -> State:
    made = container(network)
    made.annotations = {ORIGIN: "first"} | ({NAMESPACE: path} if path else {})
    return made


def test_a_container_is_behind_its_stand_ins_namespace_and_a_fork_behind_the_one_named() -> None:
    assert of(container()) == Network(namespace=f"/proc/{os.getpid()}/ns/net")
    assert of(container("none")) == Network()
    assert of(a_fork(path="/run/netns/x")) == Network(namespace="/run/netns/x")
    assert of(a_fork()) == Network(by_passt=True)


def test_an_ordinary_users_is_passts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "is_privileged", lambda: False)
    assert of(container()) == Network(by_passt=True)
    assert wanted(container(), 2, None, (), stands=False) == [Network(by_passt=True)] * 2
    with pytest.raises(RuntimeFailure, match="an ordinary user may not"):
        wanted(container(), 1, None, (OWN,), stands=False)


def test_who_has_sockets_of_the_host_has_such_of_its_own_or_in_an_empty_namespace() -> None:
    own = Network(namespace=f"/proc/{os.getpid()}/ns/net", of_host=True)
    empty = Network(of_host=True, is_empty=True)
    assert wanted(container("host"), 2, None, (), stands=False) == [own] * 2
    assert wanted(container("host"), 1, "none", (), stands=False) == [empty]
    assert of(a_fork("host", EMPTY)) == empty
    elsewhere = Network(namespace=OWN, of_host=True)
    assert wanted(container("host"), 1, None, (OWN,), stands=False) == [elsewhere]
    with pytest.raises(RuntimeFailure, match="a copy has such sockets, too"):
        wanted(container("host"), 1, "sandbox", (), stands=False)


@pytest.mark.parametrize(
    ("network", "found"), [("none", Network()), ("sandbox", Network(by_passt=True))]
)
def test_what_is_said_is_so(network: str, found: Network) -> None:
    for each in (container(), container("none"), a_fork()):
        assert wanted(each, 2, network, (), stands=False) == [found] * 2


def test_a_namespace_is_not_taken_by_a_copy_but_remembered_by_a_template() -> None:
    with pytest.raises(RuntimeFailure, match=r"name another one \(--netns\)"):
        wanted(container(), 1, None, (), stands=False)
    assert wanted(container(), 1, None, (), stands=True) == [of(container())]


@pytest.mark.parametrize(
    ("origin", "paths", "why"),
    [
        (container("none"), [OWN], "not started behind the interfaces"),
        (a_fork(), [OWN], "not started behind the interfaces"),
        (container(), [OWN, OWN], "one for each copy, 1, not 2"),
        (container(), [OWN], "the caller's own"),
        (container(), ["/proc/self/ns/uts"], "is no network namespace"),
        (container("host"), ["/dev/null"], "is no network namespace"),
        (container(), ["/dev/null"], "is no network namespace"),
        (container(), ["/nothing/there"], "no such file or directory"),
    ],
)
def test_a_namespace_that_cannot_be_is_refused_by_name(
    origin: State, paths: Sequence[str], why: str
) -> None:
    with pytest.raises(RuntimeFailure, match=why):
        wanted(origin, 1, None, paths, stands=False)


def test_who_has_no_network_has_no_namespace() -> None:
    for network, stands in (("none", False), (None, True)):
        with pytest.raises(RuntimeFailure, match="has no network namespace"):
            wanted(container(), 1, network, (OWN,), stands=stands)


def test_of_two_that_name_one_namespace_at_once_the_first_that_is_noted_has_it() -> None:
    here, there = a_fork(path=OWN), a_fork(path=OWN)
    here.id, here.created = "here", "2026-01-01T00:00:00.1Z"
    there.id, there.created = "there", "2026-01-01T00:00:00.12Z"
    for each in (here, there):
        each.phase, each.pid_start = "running", start_time(os.getpid())
    check_alone([here], [here, there])
    with pytest.raises(RuntimeFailure, match='is that of "here"'):
        check_alone([there], [here, there])
    ended, template = a_fork(path="/run/netns/gone"), a_fork(path=OWN)
    template.annotations[TEMPLATE] = "true"
    here.pid_start += 1  # its process has ended
    check_alone([there], [here, there, ended, template, container("none"), a_fork("host", OWN)])
