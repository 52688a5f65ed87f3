"""Memory barriers on all threads of a program: the host's membarrier(2), which reaches vCPUs."""

from __future__ import annotations

from sentry.abi.membarrier import (
    MEMBARRIER_CMD_PRIVATE_EXPEDITED,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
)
from sentry.platform._native import lib


def register() -> bool:
    """Prepare for `barrier`; False when the host has no expedited barriers."""
    return lib.host_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0


def barrier() -> bool:
    """Every vCPU thread that runs now has executed a full barrier when this returns."""
    return lib.host_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0
