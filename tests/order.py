"""Which tests run, and in which order: each worker begins with some that take long.

pytest-xdist cuts the list into a piece for each worker (`--dist worksteal`), and who has done his
takes from the ends of others. So what takes long has to be where pieces begin: at their ends one
CPU would wait for another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
THIRDS = 3


def a_third(tests: Iterable[T], alike: Callable[[T], bool], third: int) -> tuple[list[T], list[T]]:
    """What runs and what does not: of those that are `alike` each third one, beginning at `third`
    (0 to 2), and all others."""
    every = list(tests)
    turns = itertools.count()
    taken = [not alike(test) or next(turns) % THIRDS == third % THIRDS for test in every]
    left_out = (not runs for runs in taken)
    return list(itertools.compress(every, taken)), list(itertools.compress(every, left_out))


def arranged(
    tests: Iterable[T],
    limit_s: Callable[[T], float],
    boots: Callable[[T], bool],
    usual_s: float,
    workers: int,
) -> list[T]:
    """All of `tests`; those that may take longer than usual are dealt to the workers.

    `boots`: it needs a machine in QEMU. There is one at a time: all are for the first worker.
    """
    every = list(tests)
    machines = [test for test in every if boots(test)]
    others = [test for test in every if not boots(test)]
    long = sorted((test for test in others if limit_s(test) > usual_s), key=lambda t: -limit_s(t))
    short = iter([test for test in others if limit_s(test) <= usual_s])
    players = workers - 1 if machines and workers > 1 else workers
    hands = [long[number::players] for number in range(players)]
    if players < workers:
        hands.insert(0, machines)
    else:
        hands[0] = machines + hands[0]
    made: list[T] = []
    for number, hand in enumerate(hands):
        size = (len(every) - len(made)) // (workers - number)
        made += hand
        made += itertools.islice(short, max(0, size - len(hand)))
    return [*made, *short]
