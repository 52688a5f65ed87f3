from __future__ import annotations

import os

import pytest

from runsc.checks import networks
from runsc.checks.tried import Failed
from runsc.launch import isolation, silence


def _is(monkeypatch: pytest.MonkeyPatch, *, privileged: bool) -> None:
    monkeypatch.setattr(isolation, "is_privileged", lambda: privileged)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_own_stack_can_be_had_here() -> None:
    assert networks.network().level == "good"


def test_root_who_may_not_silence_or_make_sockets_has_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _is(monkeypatch, privileged=True)
    monkeypatch.setattr(silence, "why_not", lambda: "nftables of the host: not there")
    found = networks.network()
    assert found.level == "note" and "not there" in found.text and "CAP_NET_RAW" in found.advice

    def fail(body: object, namespaces: int = 0) -> str:
        raise Failed("no packets")

    monkeypatch.setattr(silence, "why_not", lambda: "")
    monkeypatch.setattr(networks, "tried", fail)
    assert "no packets" in networks.network().text


def test_ordinary_user_needs_passt(monkeypatch: pytest.MonkeyPatch) -> None:
    _is(monkeypatch, privileged=False)
    monkeypatch.setattr(networks, "why_no_passt", lambda: "there is none")
    assert networks.network().level == "note" and "there is none" in networks.network().text
    monkeypatch.setattr(networks, "why_no_passt", lambda: "")
    assert networks.network().level == "good"
