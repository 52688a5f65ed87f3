"""What the Python API raises, but for what a command is to blame for (`values.py`, `limits.py`).

What is wrong with a file is an OSError, as of the host's own.
"""

from __future__ import annotations


class SandboxError(Exception):
    """A sandbox, or a command in it, could not be had."""


class SandboxNotFound(SandboxError):
    """There is none of this name."""


class SandboxEnded(SandboxError):
    """It has ended, or ends."""


class CommandNotStarted(SandboxError):
    """The program could not be started: it is not there, or may not be run."""
