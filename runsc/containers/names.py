"""Where the state of containers lies, and how containers may be called. Costs nothing to import."""

from __future__ import annotations

import os

from runsc.errors import RuntimeFailure

_MARKS = "_+-."


def default_root() -> str:
    """/run/runsc for root; below XDG_RUNTIME_DIR, or a private folder in /tmp, for others."""
    if os.geteuid() == 0:
        return "/run/runsc"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "runsc") if runtime else f"/tmp/runsc-{os.geteuid()}"


def check_id(container_id: str) -> str:
    """The same names that runc takes. Raises: RuntimeFailure."""
    fine = container_id.isascii() and all(c.isalnum() or c in _MARKS for c in container_id)
    if not fine or container_id in ("", ".", "..") or len(container_id) > 255:
        raise RuntimeFailure(f"invalid container ID format: {container_id!r}")
    return container_id
