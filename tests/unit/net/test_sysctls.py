"""Settings of interfaces: what was written goes with them."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.net.sysctls import link_renamed


class _Stack:
    def __init__(self, **values: str) -> None:
        self.sysctls = {f"net/ipv4/conf/{name}/rp_filter": each for name, each in values.items()}


def _renamed(old: str, new: str | None, **values: str) -> dict[str, str]:
    stack: Any = _Stack(**values)
    link_renamed(stack, old, new)
    return {path.split("/")[3]: value for path, value in stack.sysctls.items()}


def test_settings_go_with_an_interface() -> None:
    assert _renamed("eth0", "eth1", eth0="1", eth01="2") == {"eth1": "1", "eth01": "2"}
    assert _renamed("eth0", None, eth0="1", all="2") == {"all": "2"}


@pytest.mark.parametrize("name", ["all", "default"])
def test_an_interface_of_that_name_does_not_touch_those_of_all(name: str) -> None:
    values = {name: "1", "eth0": "2"}
    assert _renamed(name, "eth1", **values) == values
    assert _renamed(name, None, **values) == values
    assert _renamed("eth0", name, **values) == {name: "1"}
