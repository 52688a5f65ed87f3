"""SHA-256 of a program that nobody may write to meanwhile, in steps."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

from sentry.mm.buffers import KernelDest
from sentry.wait.again import again
from sentry.wait.fiber import Mode
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.kernel.task import Task

HASH_MODULE: Final = "_sha2" if sys.version_info >= (3, 12) else "_sha256"
"""As hashlib has it, which would load OpenSSL; a file in some builds of Python."""
CHUNK: Final = 1 << 20
PIECE: Final = 1 << 16


async def digest(task: Task, file: Any, most: int | None = None) -> bytes:
    """Its SHA-256; empty if it is larger than `most`, or who serves it could have it read as one
    program and run as another. Raises: Errno."""
    if not await again(lambda: file.is_steady):
        return b""
    made, offset = importlib.import_module(HASH_MODULE).sha256(), 0
    while most is None or offset < most:
        dest = KernelDest(CHUNK)
        await again(file.read_at, task, dest, offset)
        if not dest.data:
            return bytes(made.digest())
        offset += len(dest.data)
        await driven(_hashed(made, bytes(dest.data)), Mode.KILLABLE)  # a sparse file has no end
    return b""


def _hashed(made: Any, data: bytes) -> Steps[None]:
    for start in range(0, len(data), PIECE):
        made.update(data[start : start + PIECE])
        yield
