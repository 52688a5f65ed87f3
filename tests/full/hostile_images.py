"""Snapshots that somebody has changed: bytes, or what they say, with the checks made right."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import msgspec

from runsc.containers import snapshots

NUMBERS = (-1, 0, 1, 2, 7, 255, 4095, 4096, 1 << 20, 1 << 31, 1 << 40, (1 << 62) - 1, 1 << 64)
BYTES = ("", "AAAA", "/" * 64, "Lg==", "Li4=", "A" * 4000, "L2V0Yy9wYXNzd2Q=")


class Image:
    """A snapshot to make others of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = json.loads((folder / snapshots.OBJECTS).read_bytes())
        self.manifest = snapshots.read(str(folder))

    def copy(self, target: Path) -> Path:
        """One as it is."""
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(self.folder, target))

    def with_objects(self, target: Path, objects: Any, **manifest: Any) -> Path:
        """One that says something else, with checks that are right."""
        self.copy(target)
        data = json.dumps(objects).encode()
        (target / snapshots.OBJECTS).write_bytes(data)
        changed = msgspec.structs.replace(
            self.manifest, objects_size=len(data), objects_check=zlib.crc32(data), **manifest
        )
        (target / snapshots.MANIFEST).write_bytes(snapshots._encoded(changed))
        return target


def flipped(path: Path, rng: random.Random) -> None:
    """A bit is another one."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    """The end is missing."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def mutated(objects: Any, rng: random.Random) -> str:
    """Change one thing in the records, in place; which."""
    way: list[str] = []
    at = objects
    while True:
        choices = [
            key for key in (at if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], (dict, list)) or at[key]
        ]  # fmt: skip
        if not choices:
            return mutated(objects, rng)
        key = rng.choice(choices)
        way.append(str(key))
        if isinstance(at[key], (dict, list)) and rng.random() < 0.9:
            at = at[key]
            continue
        at[key] = _other(at, key, rng)
        return ".".join(way)


def _other(at: Any, key: Any, rng: random.Random) -> Any:
    value = at[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([*NUMBERS, value + 1, value - 1, value ^ 1 << rng.randrange(40)])
    if isinstance(value, str):
        return rng.choice(BYTES)
    if isinstance(value, list):
        kind = rng.randrange(3)
        if kind == 0:
            return value[1:]
        return value + value[:1] if kind == 1 else value[::-1]
    if isinstance(value, dict):
        return {**value, "foreign": 1} if rng.random() < 0.5 else {}
    return rng.choice([0, "AAAA", [], {}])
