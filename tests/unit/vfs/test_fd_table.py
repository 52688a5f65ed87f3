"""sentry.vfs.fd_table: descriptors and their limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import EBADF, EMFILE
from sentry.vfs.budget import DescriptorLimit
from sentry.vfs.fd_table import FdTable


def test_nr_open_limits_every_table_and_its_copies() -> None:
    limit = DescriptorLimit()
    table = FdTable(limit)
    file: Any = SimpleNamespace(refs=0)
    table.replace(file, 65, file, 1024)
    table.check_copy()
    copy = table.copy()

    limit.nr_open = 64

    for each in (table, copy):
        with pytest.raises(EMFILE):
            each.check_copy()
        with pytest.raises(EMFILE):
            each.install(file, 1024, lowest=64)
        with pytest.raises(EBADF):
            each.replace(file, 64, file, 1024)
        assert each.install(file, 1024) == 0
