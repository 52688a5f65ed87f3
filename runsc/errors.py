"""What the runtime reports to its caller."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """The command fails with this message; exit code 1 as runc, unless said."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class NoContainer(RuntimeFailure):
    """There is none of this name. Clients look for "does not exist"."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f'container "{container_id}" does not exist')


class NotRunning(RuntimeFailure):
    """It has ended, or was never started. Clients look for runc's words."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f'container not running: "{container_id}"')


class SpecError(RuntimeFailure):
    """config.json says something wrong or unsupported; `path` is where, as JSONPath."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{message} - at `{path}`")
        self.path = path
