"""What a sandbox of a framework is made of: arguments of `AsyncSandbox.create`, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NAMES: Final = (
    "image", "root", "bundle", "memory", "cpus", "env", "network", "egress", "user", "timeout",
    "state", "platform",
)  # fmt: skip
"""Those that may be given; mounts of the host may not, since documents of evaluations come from
others, too."""


def arguments(given: Mapping[str, Any], *, host_files: bool) -> dict[str, Any]:
    """Those that were given. Raises: ValueError."""
    strange = sorted(given.keys() - set(NAMES))
    if strange:
        raise ValueError(f"no option of a sandbox: {', '.join(strange)}")
    made = {name: value for name, value in given.items() if value is not None}
    if not host_files and not made.keys() & {"image", "root", "bundle"}:
        raise ValueError(
            "image, root or bundle: what is the sandbox made of? (host_files: it may read all"
            " files of this host that this user can)"
        )
    return made
