"""The table as a sandbox has it: a module is imported at the first call of one of its numbers.

Most programs make calls of a dozen modules of sixty. Who wants to know all declarations imports
`table` instead. In a sandbox the code of what is imported late is in memory: runsc/launch/kept.py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sentry.syscalls.index import MODULES
from sentry.syscalls.registry import CALLS

if TYPE_CHECKING:
    from sentry.kernel.task import Task


class FirstCall:
    """Stands in the table until the module is there, whose declaration then takes its place."""

    __slots__ = ("_module", "_number")

    def __init__(self, number: int, module: str) -> None:
        self._number = number
        self._module = module

    def __call__(self, task: Task, *raw: int) -> Any:
        importlib.import_module(f"{__package__}.{self._module}")
        declared = CALLS[self._number]
        assert declared is not None
        return declared(task, *raw)


def import_all() -> None:
    """For who has to know every declaration."""
    for module in MODULES:
        importlib.import_module(f"{__package__}.{module}")


for _module, _numbers in MODULES.items():
    for _number in _numbers:
        if CALLS[_number] is None:
            CALLS[_number] = FirstCall(_number, _module)
