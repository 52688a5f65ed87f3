"""Objects that are there before a process is forked, and that stay, are not written to any more.

Python writes to whatever it uses, for it counts references; a page that both write to is two pages,
and on many machines the copying costs more than all else that a fork does.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from types import CodeType, FrameType

from runsc import host


def count_no_more() -> None:
    """Of all that there is now no references are counted from now on: it is never freed."""
    if host.has_immortals():  # to find all takes its time
        host.immortalize(_reached())


def _is_known(each: type) -> None:
    """A class has a number from the first look for one of its attributes on (tp_version_tag)."""
    with suppress(AttributeError):
        type.__getattribute__(each, "__module__")


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
        if isinstance(each, CodeType):  # which the collector knows nothing of
            left += (each.co_consts, each.co_names, each.co_qualname, each.co_filename)
        elif isinstance(each, type):
            _is_known(each)
    return list(seen.values())
