"""What a Gofer may do on the host: its own table (gofer/confine.py) as rules of this room.

Its root is empty, so a path that does not start at a descriptor it holds finds nothing; the flags
of openat2 lie in memory and cannot be inspected here.
"""

from __future__ import annotations

from collections.abc import Sequence

from gofer import confine
from runsc.filters.rule import Rule, Test
from sentry.abi import unistd


def rules(more: Sequence[confine.Rule] = ()) -> Sequence[Rule]:
    """The allow-list, with `more` of them. Several entries of one call are alternatives."""
    made: dict[int, Rule] = {}
    for entry in (*confine.SYSCALLS, *more):
        number = int(getattr(unistd, entry.name))
        tests = tuple(Test(a.index, a.value, a.mask) for a in entry.arguments)
        when = (tests,) if tests else ()
        known = made.get(number)
        if known is not None:
            if not (known.when and when):
                raise ValueError(f"{entry.name}: an unconditional rule beside another")
            reason = f"{known.reason}; {entry.reason}"
            made[number] = Rule(number, known.use, reason, known.when + when, known.errno)
        else:
            made[number] = Rule(number, entry.use, entry.reason, when, entry.errno)
    return list(made.values())
