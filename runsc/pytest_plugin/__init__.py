"""A plug-in of pytest: a sandbox for each test, and what programs did in it. docs/pytest.md.

pytest loads it in every run where this package is installed: it imports nothing before a test asks
for a sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from runsc.pytest_plugin.sandbox import TestSandbox

MARK = (
    "sandbox(limits=None, **options): what the fixture of this name is made with: arguments of"
    " runsc.Sandbox.create, and `limits` of each command that has none of its own (runsc.Limits)"
)


def pytest_configure(config: pytest.Config) -> None:
    """The mark is known."""
    config.addinivalue_line("markers", MARK)


@pytest.fixture(scope="session")
def sandbox_options() -> dict[str, Any]:
    """What all sandboxes are made with, unless a mark says otherwise: to be overridden."""
    return {}


@pytest.fixture
def sandbox(
    request: pytest.FixtureRequest, sandbox_options: dict[str, Any]
) -> Iterator[TestSandbox]:
    """A sandbox of its own for the test; `sandbox.syscalls` is what programs did in it."""
    from runsc.pytest_plugin.sandbox import TestSandbox  # noqa: PLC0415  see above

    options = dict(sandbox_options)
    for mark in reversed(list(request.node.iter_markers("sandbox"))):  # the nearest last
        if mark.args:
            raise pytest.UsageError("the mark `sandbox` takes options by their names")
        options |= mark.kwargs
    limits = options.pop("limits", None)
    with TestSandbox.create(**options) as made:
        made.begin(limits)
        yield made
