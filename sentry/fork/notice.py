"""How programs hear that they are in a fork: /proc/sandbox_forks, and a signal of their choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.kernel.signals import SigInfo
from sentry.kernel.task_signals import send_to_group

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel


def tell_programs(kernel: Kernel) -> None:
    """Those that have asked get their signal; the file says how often that was."""
    notice = kernel.services.forks
    notice.count += 1
    for group, number in list(notice.signals.items()):
        if group.tasks and not group.exiting:
            send_to_group(group, SigInfo.kernel(number), force=True)
