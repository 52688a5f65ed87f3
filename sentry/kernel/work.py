"""Bits of `Task.work`: what has to be done before a task sees ring 3 again."""

from __future__ import annotations

from typing import Final

WORK_SIGNAL: Final = 1
"""A signal that is not blocked may be pending."""
WORK_STOP: Final = 2
"""The group is stopping, or a tracer wants this task to stop."""
WORK_PAUSE: Final = 8
"""The sandbox is paused: this task stands still."""
WORK_TELL: Final = 16
"""Not all have heard of what the call has done (sentry.kernel.crowds). It ends no sleep."""
WORK_EXIT: Final = 4
"""The task must die before it sees ring 3 again."""
