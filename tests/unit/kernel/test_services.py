from __future__ import annotations

from typing import Any

import pytest

from sentry.kernel.services import Services


def test_what_boot_forgot_is_named() -> None:
    services = Services()
    with pytest.raises(AssertionError, match="handles"):
        services.check()
    filled: Any = object()
    services.handles = filled

    with pytest.raises(AssertionError, match="lingering"):
        services.check()
    services.lingering = filled

    services.check()
