"""What the runtime reports to its caller."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
"""A file system, or somebody's part of it."""


def why(error: OSError) -> str:
    """What strerror(3) says of it, in small letters as runc has them."""
    return (error.strerror or str(error)).lower()


class RuntimeFailure(Exception):
    """The command fails with this message; exit code 1 as runc, unless said.

    `hint`: what to do about it. A person at a terminal sees it in a second line; engines do not.
    """

    def __init__(self, message: str, code: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


FAILED, NOT_RUN, NOT_FOUND = 125, 126, 127
"""Exit codes of `do` where no program has ended, as `docker run` and env(1) have them: all else; a
program that cannot be executed; one that is not there."""


def code_of_do(error: RuntimeFailure) -> int:
    """By what is wrong."""
    if error.code != 1:
        return error.code
    _, is_program, told = str(error).partition("unable to start container process: exec")
    if not is_program:
        return FAILED
    absent = ("not found in $PATH", "no such file or directory")
    return NOT_FOUND if told.endswith(absent) else NOT_RUN


class NoContainer(RuntimeFailure):
    """There is none of this name. Clients look for "does not exist"."""

    def __init__(self, container_id: str) -> None:
        hint = "`runsc list` shows those that there are; others may be below another --root"
        super().__init__(f'container "{container_id}" does not exist', hint=hint)


class Busy(RuntimeFailure):
    """Somebody else has been changing it for longer than one waits."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f'another command is changing the container "{container_id}"')


class NotRunning(RuntimeFailure):
    """It has ended, or was never started. Clients look for runc's words."""

    def __init__(self, container_id: str) -> None:
        hint = f"it has stopped, or is paused, or not started: see `runsc state {container_id}`"
        super().__init__(f'container not running: "{container_id}"', hint=hint)


class SpecError(RuntimeFailure):
    """config.json says something wrong or unsupported; `path` is where, as JSONPath."""

    def __init__(self, path: str, message: str) -> None:
        from runsc.fields import right  # noqa: PLC0415  only for a mistake

        super().__init__(f"{message} - at `{path}`", hint=f"{path}: {right(path)}")
        self.path = path
