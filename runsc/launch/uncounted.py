"""Objects that are there before a process is forked, and that stay, are not written to any more.

Python writes to whatever it uses, for it counts references; a page that both write to is two pages,
and on many machines the copying costs more than all else that a fork does.
"""

from __future__ import annotations

import gc
import sys
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)

from runsc import host


def count_no_more() -> None:
    """Of all that there is now no references are counted from now on: it is never freed."""
    if host.has_immortals():
        host.count_no_more(gc.get_objects())


LASTING = (
    FunctionType, BuiltinFunctionType, CodeType, ModuleType, property, staticmethod, classmethod,
    MemberDescriptorType, GetSetDescriptorType, MethodDescriptorType, WrapperDescriptorType,
    str, bytes, int, float,
)  # fmt: skip
"""What modules and their classes are made of, and what their code has as constants."""


def count_code_no_more() -> None:
    """The same of what modules and their classes are made of, which lasts anyway; what programs
    have made is freed as ever."""
    if host.has_immortals():
        host.count_no_more(list(sys.modules.values()), LASTING)
