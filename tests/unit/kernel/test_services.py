from __future__ import annotations

from typing import Any

import pytest

from sentry.kernel.services import Services


def test_what_boot_forgot_is_named() -> None:
    services = Services()
    with pytest.raises(AssertionError, match="cpu_quota"):
        services.check()
    filled: Any = object()
    services.cpu_quota = 0, 100_000
    services.cpu_weight = 100

    with pytest.raises(AssertionError, match="handles"):
        services.check()
    services.handles = filled

    services.check()
