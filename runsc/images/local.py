"""Images in the store of podman or Docker, asked for by their own commands.

What `image save` writes is unpacked here, as an archive that lies in a file: how each engine stores
its layers is its own affair, and changes. A root that is mounted already (`podman image mount`) is
a folder, which needs no copy.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Final, Literal

from runsc.images.errors import ImageError, shown
from runsc.images.streams import PIECE, Budget, write_all

Engine = Literal["podman", "docker"]
ENGINES: Final[tuple[Engine, ...]] = ("podman", "docker")
PATIENCE_S: Final = 60
"""For an engine to say whether it has an image."""
MAX_SAID: Final = 4096
_NAME = re.compile(r"[A-Za-z0-9][\w.\-/:@]{0,511}", re.ASCII)
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})\s*")


def find(name: str, engines: tuple[Engine, ...] = ENGINES) -> tuple[Engine, str] | None:
    """The first engine that has an image of this name, and its id there (64 digits).

    What an engine that is not installed, or not running, would have counts as not there.
    """
    if not _NAME.fullmatch(name):
        return None
    for engine in engines:
        if shutil.which(engine) is None:
            continue
        command = [engine, "image", "inspect", "--format", "{{.Id}}", name]
        try:
            said = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=PATIENCE_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ImageError(f"cannot be asked for: {engine} does not answer") from None
        known = _ID.fullmatch(said.stdout) if said.returncode == 0 else None
        if known is not None:
            return engine, known[1]
    return None


def save(
    engine: Engine, name: str, fd: int, budget: Budget, told: Callable[[int], None]
) -> int:
    """Write an image to a file as `docker save` does; its size. `told` hears how much there is.

    Raises: ImageError, OSError.
    """
    form = ["--format", "docker-archive"] if engine == "podman" else []
    command = [engine, "image", "save", *form, name]
    size = 0
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):
        assert process.stdout is not None
        try:
            while data := process.stdout.read(PIECE):
                budget.take(len(data))
                write_all(fd, data, size)
                size += len(data)
                told(size)
        except BaseException:
            process.kill()
            raise
        if process.wait():
            said.seek(0)
            why = said.read(MAX_SAID).strip() or b"it does not say why"
            raise ImageError(f"could not be had from {engine}: {shown(why)}")
    return size
