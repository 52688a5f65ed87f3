"""The same task as in tests/unit/vfs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "vfs_kit", Path(__file__).parent.parent / "vfs" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_kit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_kit)
kernel, task, runner = _kit.kernel, _kit.task, _kit.runner
