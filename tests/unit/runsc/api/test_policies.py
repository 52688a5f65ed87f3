"""Egress policies that a sandbox tells, which may have been taken over."""

from __future__ import annotations

import tomllib

import pytest

from runsc.api.errors import SandboxError
from runsc.api.policies import NOTHING, place_of, served, told

BROKER = "/run/api.sock"
POLICY = f'[[rule]]\naction = "allow"\ncidrs = ["192.0.2.1/32"]\nbroker = "{BROKER}"\n'


def test_policy_with_brokers_that_were_given_is_taken() -> None:
    assert told(NOTHING, ()) == NOTHING
    assert told(POLICY, (BROKER, "/run/other.sock")) == POLICY
    assert BROKER in told(served(NOTHING, [place_of("api.internal:80")], BROKER), [BROKER])


@pytest.mark.parametrize("name", ["\x7f", "\x1f\t\n", "\U0001f600", "\u00e9\u2028", 'a"\\b'])
def test_any_name_of_a_broker_is_written_as_toml_has_it(name: str) -> None:
    broker = f"/run/{name}.sock"
    assert tomllib.loads(served(NOTHING, [place_of("x:80")], broker))["rule"][0]["broker"] == broker


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (POLICY, f"never given: {BROKER}"),
        ("default = ", "tells no egress policy"),
        (f"a = {'[' * 20_000}", "tells no egress policy"),
    ],
)
def test_other_policy_is_refused(policy: str, why: str) -> None:
    with pytest.raises(SandboxError, match=why):
        told(policy, ("/run/other.sock",))
