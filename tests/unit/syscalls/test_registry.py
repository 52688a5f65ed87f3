from __future__ import annotations

import sentry.syscalls.table  # noqa: F401  declares all calls
from sentry.syscalls.registry import CALLS, TABLE


def test_every_declaration_gives_a_decoder() -> None:
    declared = [declaration for declaration in TABLE if declaration is not None]

    assert len(declared) > 200
    for declaration in declared:
        assert callable(declaration.call), declaration.name
        assert len(declaration.args) <= 6
        assert CALLS[declaration.number] is not None
