"""A file before and after: how they differ, and the writing of it in one step."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable

from msgspec import Struct

from runsc.engines.settings import SettingsError

MOST = 16 << 20
"""Bytes of a file that is looked at."""


class Change(Struct, frozen=True):
    """What a file says, and what it shall say."""

    path: str
    before: str
    after: str

    def difference(self) -> str:
        """As diff -u shows it; "" for none."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            self.path,
            self.path,
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def write(self) -> None:
        """A reader finds the one or the other; owner and mode stay. Raises: OSError."""
        path = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from None
        try:
            with open(fd, "w", encoding="utf-8", newline="") as file:
                _like(path, fd)
                file.write(self.after)
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def read(path: str) -> str:
    """What it says; "" if there is none. Raises: SettingsError, OSError."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read(MOST + 1)
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8") from None
    if len(text) > MOST:
        raise SettingsError(f"{path}: too large")
    return text


def change(path: str, edit: Callable[[str], str]) -> Change:
    """Raises: SettingsError that names the file, OSError."""
    before = read(path)
    try:
        return Change(path, before, edit(before))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _like(path: str, fd: int) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        os.fchmod(fd, 0o644)
        return
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode & 0o7777)
