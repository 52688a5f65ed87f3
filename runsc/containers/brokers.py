"""Sockets of the host that egress policies name: docs/egress.md, "Brokers"."""

from __future__ import annotations

from collections.abc import Collection

from runsc.errors import RuntimeFailure


def check_told(policy: str, known: Collection[str]) -> None:
    """A policy as a sandbox tells it, which is not trusted, names no socket of the host but those
    that it was given (`State.brokers`). Raises: RuntimeFailure."""
    from sentry.net.egress.rules import PolicyError, brokers, parse  # noqa: PLC0415  few have one

    try:
        named = brokers(parse(policy, "egress"))
    except PolicyError as error:
        raise RuntimeFailure(f"the sandbox tells no egress policy: {error}") from None
    for broker in named:
        if broker not in known:
            raise RuntimeFailure(f"the sandbox names a broker that it was never given: {broker}")
