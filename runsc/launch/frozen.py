"""CPython without files: what must be true before the filter forbids opening any.

A late import finds what was kept in memory (`kept`), or is an ImportError, not a killed process;
a traceback is told without source lines (`sentry.tracebacks`); exceptions that nobody catches are
written by us.
"""

from __future__ import annotations

import _warnings
import sys
import types
from importlib.machinery import BuiltinImporter, FrozenImporter
from typing import TYPE_CHECKING, Any

from runsc.launch.ahead import Ahead
from sentry.tracebacks import text_from

if TYPE_CHECKING:
    from runsc.launch.kept import KeptCode


def freeze_imports(kept: KeptCode | None = None) -> None:
    """No import from files any more, but from `kept`, and of what was compiled ahead; no look at
    source files."""
    mapped = [finder for finder in sys.meta_path if isinstance(finder, Ahead)]
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, *mapped]
    if kept is not None:
        sys.meta_path.append(kept)
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    linecache: Any = sys.modules.get("linecache")  # a fork of the zygote has it
    if linecache is not None:
        linecache.checkcache = _no_check
        linecache.updatecache = _no_lines
    sys.excepthook = _report
    sys.unraisablehook = _report_unraisable
    _warnings.filters[:] = [("ignore", None, Warning, None, 0)]  # `warnings` is 57 KiB


def _no_check(filename: str | None = None) -> None:
    """linecache.checkcache(3) looks whether source files have changed."""


def _no_lines(filename: str, module_globals: object = None) -> list[str]:
    """linecache.updatecache: reads a source file into the cache."""
    return []


def _report(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    sys.stderr.write(text_from(error, trace))


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if unraisable.exc_value is not None:
        _report(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)
