"""Who stands between the dispatch and the handler of a system call: one table for all of them.

A call that nobody is interested in is not touched. For one that somebody is interested in, the
entry of the table is made anew from the handler outwards, in the order of `Place`: a fault is
injected next to the handler, a policy decides before that, and who watches sees what came of both.

Each gets the arguments as they were decoded, once, and hands them on to the next. What holds for a
handler holds for all: a call may raise NotNow and be made again with the same values (whoever has
begun something finds it by `kept`), or give back a `Sleep` or a coroutine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import ENOSYS
from sentry.kernel.identity import INTERPOSED
from sentry.platform.interface import Reg
from sentry.syscalls.index import MODULES
from sentry.syscalls.registry import (
    CALLS,
    TABLE,
    Declaration,
    Handler,
    compile_decoder,
    eagerly,
    signature,
)

if TYPE_CHECKING:
    from sentry.kernel.task import Task

Around = Callable[[Declaration, Handler], Handler]
"""(call, next (task, *values)) → what is called in the place of the next."""
Entry = Callable[[Declaration | None, Handler], Callable[..., Any]]
"""The same of who watches: (task, *registers), for a number without a call, too."""


class Place(IntEnum):
    """From the handler outwards."""

    INJECTION = 0
    POLICY = 1
    WATCH = 2


_MODULE_OF: Final = {number: name for name, numbers in MODULES.items() for number in numbers}
_INTERPOSED: Final[dict[int, dict[Place, Any]]] = {}
"""By number of call."""


def interpose(number: int, place: Place, who: Around | Entry | None) -> None:
    """Stand in a place of a call, instead of who stood there; None: nobody does any more.

    `who` is an `Entry` in the place of who watches, else an `Around`; it is called at once, and
    again whenever somebody else comes or goes. Calls that sleep go on as they have begun. If one of
    `sentry.kernel.identity.FAST` comes or goes, `child_identity` has to be called for all tasks.
    """
    places = _INTERPOSED.setdefault(number, {})
    if who is not None:
        places[place] = who
    else:
        places.pop(place, None)
    declaration = declared(number)
    if places:
        INTERPOSED.add(number)
        CALLS[number] = _entry(declaration, places)
    else:
        del _INTERPOSED[number]
        INTERPOSED.discard(number)
        CALLS[number] = absent if declaration is None else declaration.first_call


def declared(number: int) -> Declaration | None:
    """The declaration of a call, whose module may not have been imported yet."""
    if TABLE[number] is None and number in _MODULE_OF:
        importlib.import_module(f"{__package__}.{_MODULE_OF[number]}")
    return TABLE[number]


def _entry(declaration: Declaration | None, places: dict[Place, Any]) -> Callable[..., Any]:
    watch: Entry | None = places.get(Place.WATCH)
    if declaration is None:
        return absent if watch is None else watch(None, absent)
    handler = declaration.handler
    if signature(declaration.number, handler)[0]:
        handler = partial(eagerly, handler)
    for place in (Place.INJECTION, Place.POLICY):
        if place in places:
            handler = places[place](declaration, handler)
    if watch is not None:
        return watch(declaration, handler)
    return compile_decoder(
        declaration.name, handler, declaration.args, declaration.order, declaration.counts
    )


def absent(task: Task, *_raw: int) -> Any:
    """What the dispatch does with a number that has no call."""
    task.kernel.counters.unknown(task.ctx.regs[Reg.ORIG_RAX])
    raise ENOSYS("no such call")
