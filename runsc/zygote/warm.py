"""What a zygote does before it forks: everything is imported, and stays as it is.

A page that both write to is two pages, and on many machines the copying costs more than all else
that a start does. Python writes to whatever it uses, for it counts references; so the objects that
are there are made such that nobody counts theirs (`host.immortalize`). What a sandbox would import
late is imported here: shared, it costs nothing.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
from types import FrameType

from runsc import host
from runsc.launch import early, isolation, programs
from runsc.launch.programs import Body
from sentry.platform.memory import trim_heap

ROOMS = ("runsc", "gofer", "sentry")
LEFT_OUT = programs.NEVER_LATE | {"runsc.api", "runsc.checks", "runsc.engines", "runsc.foreign"}
"""What no start needs. Of the API: all but the process that makes a sandbox."""
ALSO = ("runsc.api.keeper", "runsc.api.document", "runsc.api.order")


def prepared() -> Body:
    """The body of every Sentry. Preconditions: one thread; no module was changed meanwhile."""
    body = programs.sentry(early.PLATFORM)
    for room in ROOMS:
        _import_below(room)
    for name in ALSO:
        importlib.import_module(name)
    body = programs.sentry(early.PLATFORM)
    gc.collect()
    trim_heap()
    host.immortalize(_reached())
    isolation.freeze_heap()
    return body


def _import_below(package: str) -> None:
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        name = found.name
        if name in LEFT_OUT or name.rpartition(".")[2].startswith(("_build", "__main__")):
            continue
        try:
            importlib.import_module(name)
        except ImportError:  # an extra that is not there
            continue
        if found.ispkg:
            _import_below(name)


def _reached() -> list[object]:
    """All that there is, but what is being run."""
    seen: dict[int, object] = {}
    left: list[object] = gc.get_objects()
    while left:
        each = left.pop()
        if id(each) in seen or each is seen or each is left or isinstance(each, FrameType):
            continue
        seen[id(each)] = each
        left.extend(gc.get_referents(each))
    return list(seen.values())
