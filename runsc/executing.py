"""What `exec` does: as those of `orders`, by itself, for it needs nothing that they do."""

from __future__ import annotations

from runsc.containers import execution
from runsc.containers.execspec import Wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runsc.options import Globals


def execute(settings: Globals, container_id: str, args: Sequence[str], **given: Any) -> int:
    """Ask the sandbox for a process, then wait for its end or leave somebody who does."""
    wishes = Wishes(container_id, args, **given)
    return execution.run(settings.root, wishes, settings.log.warning)
