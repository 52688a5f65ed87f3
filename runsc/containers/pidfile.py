"""--pid-file."""

from __future__ import annotations

import os


def write_pid_file(path: str, pid: int) -> None:
    """Written elsewhere and renamed: a reader finds the whole number or no file."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)
