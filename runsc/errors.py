"""What the runtime reports to its caller."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """The command fails with this message; exit code 1 as runc, unless said."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class NotRunning(RuntimeFailure):
    """The container has ended, or was never started."""

    def __init__(self) -> None:
        super().__init__("container not running")


class SpecError(RuntimeFailure):
    """config.json says something wrong or unsupported; `path` is where, as JSONPath."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{message} - at `{path}`")
        self.path = path
