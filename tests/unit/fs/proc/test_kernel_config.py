"""sentry.fs.proc.kernel_config: /proc/config.gz."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

from sentry.fs.proc.kernel_config import config
from sentry.fs.proc.registry import View


def test_lists_what_is_there_and_what_is_not() -> None:
    kernel = SimpleNamespace(uts=SimpleNamespace(release=b"6.12.0"))
    lines = gzip.decompress(config(View(kernel, None))).decode().splitlines()
    assert lines[2] == "# Linux/x86 6.12.0 Kernel Configuration"
    assert "CONFIG_SYSVIPC=y" in lines
    assert "# CONFIG_KSM is not set" in lines
    assert len(lines) == len(set(lines)) + 1  # the two empty comments
