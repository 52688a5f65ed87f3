"""What the runtime reports to its caller."""

from __future__ import annotations


class RuntimeFailure(Exception):  # noqa: N818
    """The command fails with this message; the exit code is runc's 1 unless the command says else."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class SpecError(RuntimeFailure):
    """config.json says something wrong or unsupported; `path` is where, as JSONPath."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{message} - at `{path}`")
        self.path = path
