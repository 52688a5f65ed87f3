"""Snapshots on disk: a folder with a manifest, a file of records and one of pages.

The manifest is written last: without it there is no snapshot. It is read as hostile input, like all
of it. What is in the two files only the Sentry knows: sentry.state.
"""

from __future__ import annotations

import math
import os
import signal
import stat
import tempfile
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from runsc.containers import lifecycle, listener, seals
from runsc.errors import NotRunning, RuntimeFailure
from sentry.config import Amount, RestoreConfig
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.containers.container import Store
    from runsc.containers.state import State
    from sentry.control.protocol import Made

FORMAT: Final = "runsc snapshot"
VERSION: Final = 2
"""What is written. All versions up to it are read."""
SEALED: Final = 2
"""Since which version there are seals."""
MANIFEST, OBJECTS, PAGES = "manifest.json", "objects.json", "pages"
PIECE_PAGES: Final = 256
"""Pages that have one check: sentry.state.pages."""
PIECE: Final = 1 << 20
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
MAX_MANIFEST: Final = 64 << 20
MAX_OBJECTS: Final = 1 << 28
Check = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""CRC-32."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the two files are."""

    format: str = FORMAT
    version: Annotated[int, msgspec.Meta(ge=0)] = VERSION
    program: str
    """Which runsc wrote it."""
    container: str
    """The container's id."""
    made_at: str
    """UTC."""
    platform: str
    annotations: dict[str, str] = {}
    """Of the container: those that are runsc's own."""
    compression: str = "none"
    """Of the file of pages: "none" or "zstd"."""
    objects_size: Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECTS)]
    objects_check: Check
    pages: Amount
    piece: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    """So many pages have one of the checks."""
    checks: Annotated[tuple[Check, ...], msgspec.Meta(max_length=1 << 22)]
    seal: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Of the manifest without it, by who made it: runsc.containers.seals. Since version 2."""
    check: Check = 0
    """Of the manifest itself, with 0 here."""


class _Head(msgspec.Struct):
    """What every version has."""

    format: str
    version: int


def _encoded(manifest: Manifest) -> bytes:
    sealed = seals.seal(_bare(manifest)) if manifest.annotations else ""
    manifest = msgspec.structs.replace(manifest, seal=sealed)
    manifest = msgspec.structs.replace(manifest, check=_check(manifest))
    return msgspec.json.format(msgspec.json.encode(manifest))


def _check(manifest: Manifest) -> int:
    """With the fields that its version has."""
    fields = msgspec.structs.asdict(msgspec.structs.replace(manifest, check=0))
    if manifest.version < SEALED:
        del fields["seal"]
    return zlib.crc32(msgspec.json.encode(fields))


def _bare(manifest: Manifest) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(manifest, seal="", check=0))


def is_ours(manifest: Manifest) -> bool:
    """This user has made it on this machine, and nobody has changed what it says."""
    return seals.is_ours(_bare(manifest), manifest.seal)


def read(folder: str) -> Manifest:
    """Raises: RuntimeFailure, which says what is wrong with it."""
    path = f"{folder}/{MANIFEST}"
    try:
        with open(_open(folder, MANIFEST), "rb") as file:
            data = file.read(MAX_MANIFEST + 1)
    except FileNotFoundError:
        raise RuntimeFailure(f"{folder} is no snapshot: it has no {MANIFEST}") from None
    except OSError as error:
        raise RuntimeFailure(f"{path}: {error.strerror}") from None
    if len(data) > MAX_MANIFEST:
        raise RuntimeFailure(f"{path}: larger than any manifest")
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.format != FORMAT:
            raise RuntimeFailure(f"{path}: this is no snapshot of runsc")
        if not 0 < head.version <= VERSION:
            raise RuntimeFailure(
                f"{path}: version {head.version} is not known, this runsc reads up to {VERSION}"
            )
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise RuntimeFailure(f"{path}: damaged: {error}") from None
    if _check(found) != found.check:
        raise RuntimeFailure(f"{path}: damaged: it is not what was written")
    if found.piece != PIECE_PAGES:
        raise RuntimeFailure(f"{path}: damaged: pieces of {found.piece} pages")
    if found.compression not in ("none", "zstd"):
        raise RuntimeFailure(f"{path}: compression {found.compression!r} is not known")
    return found


def opened(folder: str, memory_limit: int) -> RestoreConfig:
    """What the Sentry is handed, with open files. Raises: RuntimeFailure."""
    manifest = read(folder)
    if manifest.pages * PAGE > memory_limit:  # before any is decompressed
        need = manifest.pages * PAGE >> 20
        raise RuntimeFailure(
            f"cannot restore: it needs {need} MiB of memory, more than this container may have"
        )
    objects = _part(folder, OBJECTS)
    try:
        pages = _part(folder, PAGES)
    except BaseException:
        os.close(objects)
        raise
    if manifest.compression == "zstd":
        with open(pages, "rb") as packed:
            pages = _unpacked(folder, packed, manifest.pages * PAGE)
    return RestoreConfig(
        objects, manifest.objects_size, manifest.objects_check, pages, manifest.pages,
        manifest.checks,
    )  # fmt: skip


def _part(folder: str, name: str) -> int:
    """Raises: RuntimeFailure."""
    try:
        return _open(folder, name)
    except FileNotFoundError:
        raise RuntimeFailure(f"{folder}/{name}: damaged: it is not there") from None


def _open(folder: str, name: str) -> int:
    """Raises: RuntimeFailure, FileNotFoundError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(f"{folder}/{name}", flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RuntimeFailure(f"{folder}/{name}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RuntimeFailure(f"{folder}/{name}: this is no file")
    return fd


def objects(folder: str) -> Any:
    """The records, as they are written. Raises: RuntimeFailure."""
    from sentry.state import records  # noqa: PLC0415  what the Sentry reads

    manifest = read(folder)
    with open(_part(folder, OBJECTS), "rb") as file:
        data = file.read(manifest.objects_size + 1)
    if len(data) != manifest.objects_size or zlib.crc32(data) != manifest.objects_check:
        raise RuntimeFailure(f"{folder}/{OBJECTS}: damaged")
    try:
        return records.decoded(data, records.Snapshot)
    except ValueError as error:
        raise RuntimeFailure(f"{folder}/{OBJECTS}: damaged: {error}") from None


def write(
    store: Store, container_id: str, folder: str, compression: str, *, leave_running: bool
) -> None:
    """Make a snapshot of a running container; without `leave_running` that ends then.

    Raises: RuntimeFailure; then there is no snapshot, and the container goes on.
    """
    state = store.load(container_id)
    lifecycle.require_running(state)
    pack = _packer() if compression == "zstd" else None
    made: list[str] = []
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with (
            _making(folder, OBJECTS, made) as objects_file,
            _making(folder, PAGES, made) as pages_file,
            listener.connect(store.path(container_id, "control.sock")) as sock,
        ):
            fds = objects_file.fileno(), pages_file.fileno()
            reply = listener.ask_over(sock, Request("checkpoint"), math.inf, fds)
            if reply.error or reply.snapshot is None:
                raise RuntimeFailure(reply.error or "the sandbox gives no answer")
            if pack is not None:
                _pack(pack, folder, pages_file)
            with _making(folder, MANIFEST, made) as file:
                file.write(_encoded(_manifest(state, reply.snapshot, compression)))
            if not leave_running:  # before the connection ends: it stands still until then
                lifecycle.signal(store, state, signal.SIGKILL, False, 1)
    except BaseException as error:
        for path in made:
            with suppress(OSError):
                os.unlink(path)
        if isinstance(error, ConnectionError):
            raise NotRunning(container_id) from None
        if isinstance(error, FileExistsError):
            raise RuntimeFailure(f"{folder} has a snapshot already, or other files") from None
        if isinstance(error, OSError):
            raise RuntimeFailure(f"{folder}: {error.strerror}") from None
        raise
    if not leave_running:
        with suppress(RuntimeFailure):  # it may be gone already
            lifecycle.wait(store, container_id, 1)


def _manifest(state: State, made: Made, compression: str) -> Manifest:
    from runsc import __version__  # noqa: PLC0415

    own = {name: text for name, text in state.annotations.items() if name.startswith("dev.runsc.")}
    return Manifest(
        program=__version__,
        container=state.id,
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        platform=made.platform,
        annotations=own,
        compression=compression,
        objects_size=made.objects_size,
        objects_check=made.objects_check,
        pages=made.pages,
        piece=made.piece,
        checks=tuple(made.checks),
    )


def _making(folder: str, name: str, made: list[str]) -> Any:
    """A new file, which is noted in `made`. Raises: OSError."""
    path = f"{folder}/{name}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    made.append(path)
    return open(fd, "r+b")


def _packer() -> Any:
    """Of Python 3.14, or of the extra. Raises: RuntimeFailure."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        try:
            from backports import zstd  # noqa: PLC0415
        except ImportError:
            raise RuntimeFailure("zstd needs the package backports.zstd") from None
    return zstd


def _pack(zstd: Any, folder: str, pages: Any) -> None:
    """Compress the file of pages, which is replaced."""
    path = f"{folder}/{PAGES}"
    with tempfile.NamedTemporaryFile(dir=folder, prefix=PAGES, delete=False) as packed:
        try:
            checked = {zstd.CompressionParameter.checksum_flag: 1}
            with zstd.ZstdFile(packed, "wb", options=checked) as target:
                pages.seek(0)
                while data := pages.read(PIECE):
                    target.write(data)
            os.replace(packed.name, path)
        except BaseException:
            os.unlink(packed.name)
            raise


def _unpacked(folder: str, packed: Any, size: int) -> int:
    """A file without a name of this size. Raises: RuntimeFailure."""
    zstd = _packer()
    left = size
    try:
        with tempfile.TemporaryFile(dir=folder) as plain, zstd.ZstdFile(packed) as source:
            while data := source.read(PIECE):
                left -= len(data)
                if left < 0:
                    break
                plain.write(data)
            plain.flush()
            if left:
                raise RuntimeFailure(f"{folder}/{PAGES}: damaged: it has another size")
            return os.dup(plain.fileno())
    except (zstd.ZstdError, EOFError) as error:
        raise RuntimeFailure(f"{folder}/{PAGES}: damaged: {error}") from None
    except OSError as error:
        raise RuntimeFailure(f"{folder}: {error.strerror}") from None
