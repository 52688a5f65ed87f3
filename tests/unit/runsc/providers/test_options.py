"""What a sandbox of a framework is made of."""

from __future__ import annotations

import pytest

from runsc.providers.options import arguments


def test_what_was_given_is_taken_without_the_rest() -> None:
    given = {"image": "debian", "memory": None, "network": "none"}
    assert arguments(given, host_files=False) == {"image": "debian", "network": "none"}


def test_the_hosts_files_are_seen_only_where_that_was_said() -> None:
    with pytest.raises(ValueError, match="host_files"):
        arguments({"network": "none"}, host_files=False)
    assert arguments({}, host_files=True) == {}


def test_a_strange_option_is_named() -> None:
    with pytest.raises(ValueError, match="mounts"):
        arguments({"image": "x", "mounts": {"/": "/"}}, host_files=False)
