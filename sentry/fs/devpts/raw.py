"""The settings of a host's terminal that is the wire behind one of ours: cfmakeraw(3)."""

from __future__ import annotations

from typing import Any

from sentry.abi.ioctl import (
    BRKINT,
    CS8,
    CSIZE,
    ECHO,
    ECHONL,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNBRK,
    IGNCR,
    INLCR,
    ISIG,
    ISTRIP,
    IXON,
    OPOST,
    PARENB,
    PARMRK,
    VMIN,
    VTIME,
)


def raw(settings: list[Any]) -> list[Any]:
    """What tcgetattr gives, changed such that all that is typed comes through as it is."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, keys = settings
    iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON)
    oflag &= ~OPOST
    cflag = cflag & ~(CSIZE | PARENB) | CS8
    lflag &= ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN)
    keys = list(keys)
    keys[VMIN], keys[VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, keys]
