"""Root file systems that were made of images, kept by what their layers hold.

    roots/CHAIN-FORM/     a root: `root` (a folder) or `root.erofs`, and `whole.json`, written last
    images/KEY.json       which root an image has, and its configuration; keys are digests
    making/NAME/          what is being made: held by flock(2) by who makes it

A root is made in `making` and renamed, so whoever finds one finds all of it; `whole.json` tells it
from what a disk lost when the machine went down. What stands in `making` and is held by nobody is
of a process that was killed, and goes with the next root that is made. The folders are their
owner's alone: there may be devices and set-user bits of anybody's choice in them.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from runsc import host
from runsc.containers.names import cache_folder, is_in_user_namespace
from runsc.images.documents import Digest, ImageConfig
from runsc.images.errors import ImageError
from sentry.abi.capability import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_MKNOD,
    CAP_SETFCAP,
)

VERSION: Final = 1
"""Of what lies in a cache: what another one wrote is made anew."""
ROOTS, IMAGES, MAKING = "roots", "images", "making"
WHOLE: Final = "whole.json"
MAX_DOCUMENT: Final = 16 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Chain = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Form = Literal["folder", "erofs"]
T = TypeVar("T")
NAMES: Final[dict[Form, str]] = {"folder": "root", "erofs": "root.erofs"}
RIGHTS: Final = (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_MKNOD, CAP_SETFCAP)
"""What a folder of others' files wants."""


class Whole(msgspec.Struct, frozen=True):
    """What is known of a root that was made to its end."""

    version: int
    size: int
    """Bytes of an image; 0 of a folder."""
    passwd: bytes = b""
    """What it has of /etc/passwd,"""
    group: bytes = b""
    """and of /etc/group."""


class Known(msgspec.Struct, frozen=True):
    """What is known of an image."""

    version: int
    digest: Digest
    chain: Chain
    config: ImageConfig


class Kept(msgspec.Struct, frozen=True):
    """A root that is there."""

    path: str
    whole: Whole


def default_place() -> str:
    """Among what outlives a restart: not below root's state folder, which lies in memory."""
    return os.path.join(cache_folder(), "images")


def form() -> Form:
    """A folder, if this process can make devices and give files to anybody; else one file."""
    if os.geteuid() or is_in_user_namespace():
        return "erofs"
    with open("/proc/self/status", "rb") as file:
        has = next(int(line.split()[1], 16) for line in file if line.startswith(b"CapEff:"))
    return "folder" if all(has >> right & 1 for right in RIGHTS) else "erofs"


class Cache:
    """One such folder, made if it is not there."""

    def __init__(self, place: str) -> None:
        """Raises: ImageError if it is, or could be, another user's; OSError."""
        self._place = os.path.abspath(place)
        os.makedirs(self._place, 0o700, exist_ok=True)
        for name, others in (("", 0o022), (ROOTS, 0o077), (IMAGES, 0o077), (MAKING, 0o077)):
            path = os.path.join(self._place, name)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            info = os.lstat(path)
            is_folder = stat.S_ISDIR(info.st_mode)
            if info.st_uid != os.geteuid() or info.st_mode & others or not is_folder:
                raise ImageError(f"cannot be kept: {path} is not a folder of this user's alone")

    def spool(self) -> io.FileIO:
        """A file without a name, for what has to be read more than once. Raises: OSError."""
        return tempfile.TemporaryFile(buffering=0, dir=os.path.join(self._place, MAKING))

    # --- images

    def known(self, key: str) -> Known | None:
        """What is known of an image by one of its digests (64 digits)."""
        found = _document(os.path.join(self._place, IMAGES, f"{key}.json"), Known)
        return found if found is not None and found.version == VERSION else None

    def remember(self, key: str, known: Known) -> None:
        """Raises: OSError."""
        with self._held(f"image-{key}") as place:
            made = os.path.join(place, "image")
            _write(made, msgspec.json.encode(known))
            os.rename(made, os.path.join(self._place, IMAGES, f"{key}.json"))

    # --- roots

    def root(self, chain: str, kind: Form) -> Kept | None:
        """A root that is whole; None if it has to be made."""
        place = self._root(chain, kind)
        whole = _document(os.path.join(place, WHOLE), Whole)
        path = os.path.join(place, NAMES[kind])
        try:
            info = os.lstat(path)
        except OSError:
            return None
        is_kind = stat.S_ISDIR if kind == "folder" else stat.S_ISREG
        if whole is None or whole.version != VERSION or not is_kind(info.st_mode):
            return None
        if kind == "erofs" and info.st_size != whole.size:
            return None
        return Kept(path, whole)

    def make(self, chain: str, kind: Form, fill: Callable[[str], Whole]) -> Kept:
        """A root that is whole, made if need be: `fill` makes it in an empty folder.

        Who wants the same one meanwhile waits. Raises: what `fill` raises, OSError.
        """
        self._sweep()
        with self._held(f"{chain}-{kind}") as held:
            found = self.root(chain, kind)
            if found is not None:
                return found
            place = os.path.join(held, "made")
            os.mkdir(place, 0o700)
            _write(os.path.join(place, WHOLE), msgspec.json.encode(fill(place)))
            fd = os.open(place, _DIRECTORY)
            try:
                host.syncfs(fd)
            finally:
                os.close(fd)
            final = self._root(chain, kind)
            with suppress(FileNotFoundError):
                os.rename(final, os.path.join(held, "broken"))
            os.rename(place, final)
            found = self.root(chain, kind)
            if found is None:
                raise ImageError(f"is no longer in the cache {self._place}")
            return found

    def _root(self, chain: str, kind: Form) -> str:
        return os.path.join(self._place, ROOTS, f"{chain}-{kind}")

    # --- what is being made

    @contextmanager
    def _held(self, name: str) -> Iterator[str]:
        """An empty folder that is this process's alone, and gone afterwards."""
        path = os.path.join(self._place, MAKING, name)
        while (fd := _claimed(path)) is None:
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
        try:
            _empty(path)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(fd)

    def _sweep(self) -> None:
        """Take away what was being made by processes that are gone."""
        making = os.path.join(self._place, MAKING)
        for name in os.listdir(making):
            path = os.path.join(making, name)
            try:
                fd = _claimed(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except NotADirectoryError:  # a spool that has a name for a moment
                continue
            if fd is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)


def _claimed(path: str, how: int = fcntl.LOCK_EX) -> int | None:
    """A descriptor that holds a folder; None if there is none of this name, or somebody has it."""
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, how)
        held, there = os.fstat(fd), os.stat(path, follow_symlinks=False)
        if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _empty(path: str) -> None:
    """Take away what is in a folder."""
    with os.scandir(path) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _write(path: str, data: bytes) -> None:
    """A small file, on the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _document(path: str, kind: type[T]) -> T | None:
    """What this program has written there; None if it is not, or something else."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(MAX_DOCUMENT), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
