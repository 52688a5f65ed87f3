"""Objects that are there before a process is forked, and that stay, are not written to any more.

Python writes to whatever it uses, for it counts references; a page that both write to is two pages,
and on many machines the copying costs more than all else that a fork does.
"""

from __future__ import annotations

import gc
from types import CodeType, FrameType

from runsc import host


def count_no_more() -> None:
    """Of all that there is now no references are counted from now on: it is never freed."""
    if host.has_immortals():  # to find all takes its time
        host.immortalize(_reached())


def _number(each: type) -> None:
    """A class gets a number with the first look for one of its attributes (tp_version_tag)."""
    type.__getattribute__(each, "__init__")


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
            _number(each)
        elif isinstance(each, str | bytes):
            hash(each)  # is kept
    return list(seen.values())
