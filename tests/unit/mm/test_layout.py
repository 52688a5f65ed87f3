"""Where top-down placement starts."""

from __future__ import annotations

import pytest

from sentry.mm.layout import MIN_GAP, STACK_GUARD_GAP, STACK_RANDOM, mmap_base
from sentry.platform.constants import TASK_SIZE


@pytest.mark.parametrize(
    ("limit", "gap"),
    [
        (8 << 20, MIN_GAP),
        (1 << 30, (1 << 30) + STACK_GUARD_GAP),
        ((1 << 64) - 1, TASK_SIZE // 6 * 5),
    ],
)
def test_base_leaves_room_for_the_stack(limit: int, gap: int) -> None:
    assert mmap_base(limit, False) == (TASK_SIZE - gap) & ~0xFFF


def test_random_base_is_a_page_below_the_fixed_one() -> None:
    bases = {mmap_base(8 << 20, True) for _ in range(20)}
    highest = TASK_SIZE - STACK_RANDOM
    assert len(bases) > 1
    assert all(not base & 0xFFF and highest - (1 << 41) < base <= highest for base in bases)
