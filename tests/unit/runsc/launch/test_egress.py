"""A policy of the command line or of an annotation: which counts, and what is wrong with one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from runsc.cli import global_flags
from runsc.containers.container import Store
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.launch import egress, label
from runsc.launch.egress import ANNOTATION, asked_for, check_joined, host_addresses

ALLOW, DENY = 'default = "allow"', 'default = "deny"'


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(ALLOW)
    return path


def test_flag_counts_more_than_the_annotation(policy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(DENY)
    plain, flags = global_flags([]), global_flags([f"--egress={policy}"])
    annotations = {ANNOTATION: str(other)}

    assert asked_for(plain, {}, "sandbox") is None
    found = [asked_for(each, annotations, "sandbox") for each in (plain, flags)]
    assert [each and each.policy for each in found] == [DENY, ALLOW]
    assert asked_for(flags, {}, "none") is None


def test_container_whose_sockets_are_the_hosts_does_not_start(policy: Path) -> None:
    with pytest.raises(RuntimeFailure, match="sockets of the host"):
        asked_for(global_flags([f"--egress={policy}"]), {}, "host")


def test_container_with_a_policy_joins_no_sandbox_that_has_none() -> None:
    sandbox = State("1.2.0", "s", "/b", network="sandbox", judged=True)
    check_joined("c", sandbox)
    check_joined("c", State("1.2.0", "s", "/b", network="none"))
    for network in ("host", "sandbox"):
        with pytest.raises(RuntimeFailure, match='"c" has an egress policy, but the sandbox "s"'):
            check_joined("c", State("1.2.0", "s", "/b", network=network))


@pytest.mark.parametrize("text, told", [
    ("default = 7", "default: Expected"),
    ("x", "policy.toml: "),
    ('[[rule]]\naction = "allow"\nbroker = "b"', "rule 1: broker: 'b' is no absolute path"),
    ('dns = { servers = ["x"] }', "dns: servers: 'x'"),
    ("# " + "x" * (1 << 20), "more than 1048576 bytes"),
])  # fmt: skip
def test_policy_with_an_error_is_refused(policy: Path, text: str, told: str) -> None:
    policy.write_text(text)
    with pytest.raises(RuntimeFailure, match=told):
        asked_for(global_flags([f"--egress={policy}"]), {}, "sandbox")


def test_policy_that_is_no_text_or_not_there_is_refused(policy: Path) -> None:
    policy.write_bytes(b"\xff")
    with pytest.raises(RuntimeFailure, match="not UTF-8"):
        asked_for(global_flags([f"--egress={policy}"]), {}, "sandbox")
    policy.unlink()
    with pytest.raises(RuntimeFailure, match="no such file"):
        asked_for(global_flags([f"--egress={policy}"]), {}, "none")


def test_addresses_of_the_host_are_told() -> None:
    found = host_addresses()
    assert "127.0.0.1" in found and len(found) == len(set(found))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("the host has no way out")
        assert sock.getsockname()[0] in found


def test_brokers_of_another_policy_are_noted(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks the sandbox later which policy it has knows that these were given to it."""
    store, flags = Store(str(tmp_path / "state")), global_flags([])
    state = State("1.2.0", "s", "/nowhere", network="sandbox", brokers=("/run/first.sock",))
    store.create(state)
    rule = '[[rule]]\naction = "allow"\ncidrs = ["192.0.2.1/32"]\nbroker = "/run/api.sock"\n'
    policy.write_text(rule)
    ours, theirs = os.pipe()
    monkeypatch.setattr(
        egress, "with_dialer", lambda config, *_: (replace(config, dialer_fd=ours), 1)
    )
    monkeypatch.setattr(label, "of_bundle", lambda _: None)
    with egress.way_to_brokers(flags, egress.read(str(policy)), store, state) as fds:
        assert fds == (ours,)
    os.close(theirs)
    assert store.load("s").brokers == ("/run/first.sock", "/run/api.sock")
