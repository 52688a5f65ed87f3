"""Which network a container has, and what is logged where it is another than by default."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runsc.cli import global_flags
from runsc.errors import RuntimeFailure
from runsc.launch import network_choice, silence
from runsc.launch import passt as passt_room
from runsc.launch.network_choice import Choice, network_of, passt_of, settled
from runsc.launch.passt import Ways

OWN = "/proc/self/ns/net"


class Caller:
    """Who starts a container."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self._folder = folder
        monkeypatch.setenv("PATH", str(folder))
        self.asked: list[bool] = []
        """Whether there are rights was looked at."""

    def is_user(
        self, uid: int, *, passt: bool = False, refused: str = "", routed: bool = True
    ) -> None:
        """`refused`: why there may be no packets; `routed`: the host has a default route."""
        self._patch.setattr(os, "geteuid", lambda: uid)

        def why() -> str:
            self.asked.append(True)
            return refused

        self._patch.setattr(silence, "why_not", why)
        self._patch.setattr(passt_room, "ways", lambda: Ways((bytes(4), 8) if routed else None))
        if passt:
            (self._folder / "passt").touch(0o755)

    def chooses(self, said: str | None, namespace: str | None, default: str) -> Choice:
        """For a container with such a network namespace, or none."""
        self._patch.setattr(network_choice, "DEFAULT", default)
        return network_choice.choice(_flags(said), _container(namespace))


def _flags(network: str | None) -> Any:
    return global_flags([] if network is None else [f"--network={network}"])


def _container(namespace: str | None, label: str = "") -> Any:
    asked = () if namespace is None else (("network", namespace),)
    return SimpleNamespace(namespaces=asked, selinux_label=label)


@pytest.fixture
def caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Caller:
    return Caller(monkeypatch, tmp_path)


@pytest.mark.parametrize(("uid", "said", "passt", "namespace", "network"), [
    (0, "sandbox", False, "/run/netns/x", "sandbox"),
    (0, "sandbox", True, "", "sandbox"),
    (0, "sandbox", True, None, "none"),
    (7, "sandbox", True, "", "sandbox"),
    (7, "sandbox", True, "/run/netns/x", "none"),
    (7, "sandbox", True, None, "none"),
])  # fmt: skip
def test_network_of_the_sandboxs_own_is_what_can_be_plugged_in(
    caller: Caller, uid: int, said: str, passt: bool, namespace: str | None, network: str
) -> None:
    """An ordinary user has passt, where it is installed and a new namespace is asked for."""
    caller.is_user(uid, passt=passt, refused="no")
    for default in ("host", "sandbox"):
        assert caller.chooses(said, namespace, default).network == network
        for other in ("none", "host"):
            assert caller.chooses(other, namespace, default) == Choice(other)
    assert not caller.asked


@pytest.mark.parametrize("namespace", [None, "", "/run/netns/x"])
def test_by_default_it_is_what_this_caller_may_have(
    caller: Caller, namespace: str | None
) -> None:
    caller.is_user(0)
    wanted = "none" if namespace is None else "sandbox"
    assert caller.chooses(None, namespace, "sandbox") == Choice(wanted)
    assert caller.chooses(None, namespace, "host").network == wanted.replace("sandbox", "host")
    caller.is_user(0, refused="there is no way")
    found = caller.chooses(None, namespace, "sandbox")
    if namespace is None:
        assert found == Choice("none")
    else:
        assert found == Choice("host", "there is no way")


def test_by_default_an_ordinary_user_has_passt_or_nothing(caller: Caller) -> None:
    caller.is_user(7)
    assert caller.chooses(None, "", "host") == Choice("none")
    found = caller.chooses(None, "", "sandbox")
    assert found.network == "none" and "passt" in found.instead
    assert caller.chooses(None, "/run/netns/x", "sandbox") == Choice("none")
    caller.is_user(7, passt=True)
    assert caller.chooses(None, "", "sandbox") == Choice("sandbox")
    assert caller.chooses(None, None, "sandbox") == Choice("none")
    caller.is_user(7, passt=True, routed=False)
    assert caller.chooses(None, "", "sandbox").instead == "the host has no default route"
    assert caller.chooses("sandbox", "", "sandbox") == Choice("sandbox")


def test_network_of_the_caller_is_never_silenced(caller: Caller) -> None:
    caller.is_user(0)
    found = caller.chooses(None, OWN, "sandbox")
    assert found.network == "host" and OWN in found.instead
    with pytest.raises(RuntimeFailure, match="the caller's own network namespace"):
        caller.chooses("sandbox", OWN, "host")
    assert caller.chooses("host", OWN, "sandbox") == Choice("host")
    assert caller.chooses(None, OWN, "host") == Choice("host")


def test_container_with_a_label_of_selinux_has_sockets_of_the_host(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller.is_user(0)
    monkeypatch.setattr(network_choice, "DEFAULT", "sandbox")
    labelled = _container("", "system_u:system_r:container_kvm_t:s0")
    found = network_choice.choice(_flags(None), labelled)
    assert found.network == "host" and "SELinux" in found.instead and not caller.asked
    assert network_choice.choice(_flags("sandbox"), labelled) == Choice("sandbox")


def test_ordinary_user_without_passt_is_told(caller: Caller) -> None:
    caller.is_user(7)
    with pytest.raises(RuntimeFailure, match="passt"):
        caller.chooses("sandbox", "", "host")


def test_what_was_chosen_stays_and_is_logged_where_it_is_another(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller.is_user(0, refused="there is no way")
    monkeypatch.setattr(network_choice, "DEFAULT", "sandbox")
    log = tmp_path / "log"
    flags = settled(global_flags([f"--log={log}"]), _container(""))
    assert (flags.network, flags.network_is_default) == ("host", True)
    (line,) = log.read_text().splitlines()
    assert "level=info" in line and "--network=host: there is no way" in line
    assert settled(flags, _container("")).network == network_of(flags, _container("")) == "host"
    said = settled(_flags("none"), _container(""))
    assert (said.network, said.network_is_default) == ("none", False)
    assert len(log.read_text().splitlines()) == 1


def test_passt_is_for_an_ordinary_users_own_stack_alone(caller: Caller, tmp_path: Path) -> None:
    caller.is_user(7, passt=True)
    assert passt_of(_flags("sandbox")) == str(tmp_path / "passt")
    assert passt_of(_flags("host")) == passt_of(_flags("none")) == ""
    caller.is_user(0)
    assert passt_of(_flags("sandbox")) == ""
