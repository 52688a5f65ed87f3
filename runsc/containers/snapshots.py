"""Snapshots on disk: a folder with a manifest, a file of records and one of pages.

The manifest gets its name last: without it there is no snapshot. It is read as hostile input, like
all of it. What is in the two files only the Sentry knows: sentry.state.
"""

from __future__ import annotations

import hashlib
import math
import os
import select
import signal
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec

from runsc.containers import lifecycle, listener, nameless, seals
from runsc.containers.brokers import check_told
from runsc.errors import NotRunning, RuntimeFailure, why
from runsc.progress import Tell, silent
from sentry.config import Amount, PagesConfig, RestoreConfig
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from typing import Self

    from runsc.containers.container import Store
    from runsc.containers.state import State
    from sentry.control.answers import Made
    from sentry.control.protocol import Reply

FORMAT: Final = "runsc snapshot"
VERSION: Final = 2
"""What is written. All versions up to it are read."""
SINCE_2: Final = ("name", "own", "origins", "parent", "seal")
"""Fields that the first version has not."""
MANIFEST, OBJECTS, PAGES = "manifest.json", "objects.json", "pages"
PIECE_PAGES: Final = 256
"""Pages that have one check: sentry.state.pages."""
PIECE: Final = 1 << 20
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
LOOK_MS: Final = 200
"""So often is somebody told how far it is."""
MAX_LAYERS: Final = 64
"""Snapshots that build on each other."""
OF_API: Final = "dev.runsc.order"
"""Annotation: `restore` of the Python API makes a sandbox of it, by what it says."""
DECIDED: Final = "dev.runsc.decided"
"""Annotation of snapshots of such: sentry.control.answers.Decided, in JSON."""
MAX_MANIFEST: Final = 64 << 20
MAX_OBJECTS: Final = 1 << 28
Check = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""CRC-32."""
Place = Annotated[int, msgspec.Meta(ge=0, lt=MAX_LAYERS)]


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The snapshot that another one builds on."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    """Its folder, from that of the other one."""
    digest: Annotated[str, msgspec.Meta(max_length=64)]
    """SHA-256 of its manifest."""


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
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """What it is called; all from here to `seal` is since version 2."""
    own: Amount = 0
    """Pages in its own file: those that its parent has are not there."""
    origins: Annotated[tuple[tuple[Place, Amount, Amount], ...],
                       msgspec.Meta(max_length=1 << 20)] = ()  # fmt: skip
    """Where pages are, in their order: (layer, the first one in its file, how many). Layer 0 is the
    oldest of the snapshots that it builds on."""
    parent: Parent | None = None
    seal: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Of the manifest without it, by who made it: runsc.containers.seals."""
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
    if manifest.version < 2:
        for name in SINCE_2:
            del fields[name]
    return zlib.crc32(msgspec.json.encode(fields))


def _bare(manifest: Manifest) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(manifest, seal="", check=0))


def is_ours(manifest: Manifest) -> bool:
    """This user has made it on this machine, and nobody has changed what it says."""
    return seals.is_ours(_bare(manifest), manifest.seal)


def read(folder: str) -> Manifest:
    """Raises: RuntimeFailure, which says what is wrong with it."""
    return _decoded(folder, _read(folder))


def _read(folder: str) -> bytes:
    path = f"{folder}/{MANIFEST}"
    try:
        with open(_open(folder, MANIFEST), "rb") as file:
            data = file.read(MAX_MANIFEST + 1)
    except FileNotFoundError:
        raise RuntimeFailure(f"{folder} is no snapshot: it has no {MANIFEST}") from None
    except OSError as error:
        raise RuntimeFailure(f"{path}: {why(error)}") from None
    if len(data) > MAX_MANIFEST:
        raise RuntimeFailure(f"{path}: larger than any manifest")
    return data


def _decoded(folder: str, data: bytes) -> Manifest:
    path = f"{folder}/{MANIFEST}"
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


def opened(
    folder: str, memory_limit: int, *, background: bool, tell: Tell = silent
) -> RestoreConfig:
    """What the Sentry is handed, with open files. Raises: RuntimeFailure."""
    manifest = read(folder)
    if manifest.pages * PAGE > memory_limit:  # before any is decompressed
        need = manifest.pages * PAGE >> 20
        raise RuntimeFailure(
            f"cannot restore: it needs {need} MiB of memory, more than this container may have"
        )
    fds: list[int] = []
    try:
        fds.append(_part(folder, OBJECTS))
        layers: list[PagesConfig] = []
        chain = _chain(folder, manifest)[::-1]
        owns = [_own(place, each, memory_limit) for place, each in chain]
        needed = _needed(folder, manifest, owns)
        for (place, each), pages in zip(chain, needed, strict=True):
            layers.append(_pages(place, each, pages, tell))
            fds.append(layers[-1].fd)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    own = ((0, 0, manifest.pages),) if manifest.pages and manifest.version < 2 else ()
    background = background and manifest.compression == "none"
    return RestoreConfig(
        fds[0], manifest.objects_size, manifest.objects_check, manifest.pages, tuple(layers),
        manifest.origins or own, background, manifest.name,
    )  # fmt: skip


def _chain(folder: str, manifest: Manifest) -> list[tuple[str, Manifest]]:
    """It, and those that it builds on. Raises: RuntimeFailure."""
    found = [(folder, manifest)]
    while (parent := manifest.parent) is not None:
        if len(found) == MAX_LAYERS:
            raise RuntimeFailure(f"{folder}: damaged: it builds on too many others")
        folder = os.path.join(folder, parent.path)
        data = _read(folder)
        if hashlib.sha256(data).hexdigest() != parent.digest:
            child = found[-1][0]
            raise RuntimeFailure(f"{child} builds on {folder}, which is another snapshot now")
        manifest = _decoded(folder, data)
        found.append((folder, manifest))
    return found


def _own(folder: str, manifest: Manifest, memory_limit: int) -> int:
    """Pages in its own file. Raises: RuntimeFailure."""
    own = manifest.own if manifest.version >= 2 else manifest.pages
    if own * PAGE > memory_limit:
        raise RuntimeFailure(f"{folder}: damaged: more pages than a sandbox has")
    return own


def _needed(folder: str, manifest: Manifest, owns: list[int]) -> list[bytearray]:
    """Of each snapshot of a chain a byte for each of its own pages: 1 if it is needed.

    Raises: RuntimeFailure.
    """
    if len(owns) == 1:
        return [bytearray(b"\1" * owns[0])]
    left, found = manifest.pages, [bytearray(own) for own in owns]
    for layer, first, count in manifest.origins:
        left -= count
        if left < 0 or layer >= len(owns) or first + count > owns[layer]:
            raise RuntimeFailure(f"{folder}: damaged: pages that are nowhere")
        found[layer][first : first + count] = b"\1" * count
    return found


def _pages(folder: str, manifest: Manifest, needed: bytearray, tell: Tell) -> PagesConfig:
    """Its own ones; if they are compressed those that are needed. Raises: RuntimeFailure."""
    own, is_hashed = len(needed), manifest.version >= 2
    fd = _part(folder, PAGES)
    if manifest.compression != "zstd":
        return PagesConfig(fd, own, manifest.checks, is_hashed)
    with open(fd, "rb") as packed:
        is_whole = all(needed)
        take = _written if is_whole else _Taking(folder, manifest.checks, needed)
        fd = _unpacked(folder, packed, own * PAGE, take, tell)
    return PagesConfig(fd, own, manifest.checks, is_hashed, looked_at=not is_whole)


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
        raise RuntimeFailure(f"{folder}/{name}: {why(error)}") from None
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


class Wish(NamedTuple):
    """What a snapshot is to be."""

    folder: str
    compression: str = "none"
    leave_running: bool = False
    """The container goes on afterwards; else it ends."""
    parent: str = ""
    """The folder of the one that it builds on: the last one of this container."""


class Making:
    """A snapshot in the making: its files, what is asked of the sandbox, and what it answers. What
    ends with an error leaves nothing.

    Raises: RuntimeFailure.
    """

    def __init__(self, state: State, wish: Wish, tell: Tell = silent) -> None:
        lifecycle.require_running(state)
        self._state = state
        self._wish = wish
        self._tell = tell
        self._pack = _packer() if wish.compression == "zstd" else None
        self._parent: Parent | None = None
        self.request = Request("checkpoint")
        if wish.parent:
            name, self._parent = _parent(wish)
            self.request = Request("checkpoint", parent=name)
        self._files = nameless.Files(wish.folder)
        self._made_folder = False

    def __enter__(self) -> Self:
        try:
            if not os.path.isdir(self._wish.folder):
                os.makedirs(self._wish.folder, mode=0o700)
                self._made_folder = True
            for name in (OBJECTS, PAGES):
                self._files.make(name)
        except OSError as error:
            self.__exit__(type(error), error, None)
        return self

    @property
    def fds(self) -> tuple[int, ...]:
        """They go with the request."""
        return tuple(self._files[name].fileno() for name in (OBJECTS, PAGES))

    @property
    def written(self) -> int:
        """Bytes of pages, so far."""
        return os.fstat(self._files[PAGES].fileno()).st_size

    def finish(self, reply: Reply) -> None:
        """What the sandbox says of what it has written. Raises: RuntimeFailure, OSError."""
        files, made = self._files, reply.snapshot
        if reply.error or made is None:
            told = reply.error or "the sandbox gives no answer"
            raise RuntimeFailure(f"{self._wish.folder}: {told}" if reply.error else told)
        if self._pack is not None:
            _pack(self._pack, files[PAGES], files.make_again(PAGES), self._tell)
        files.make(MANIFEST)
        files[MANIFEST].write(_encoded(_manifest(self._state, made, self._wish, self._parent)))
        files.name()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        self._files.close()
        if error is None:
            return
        folder = self._wish.folder
        if self._made_folder:
            with suppress(OSError):  # somebody has put something there
                os.rmdir(folder)
        if isinstance(error, ConnectionError):
            raise NotRunning(self._state.id) from None
        if isinstance(error, FileExistsError):
            raise RuntimeFailure(f"{folder} has a snapshot already, or other files") from None
        if isinstance(error, OSError):
            raise RuntimeFailure(f"{folder}: {why(error)}") from None


def write(store: Store, container_id: str, wish: Wish, tell: Tell = silent) -> None:
    """Make a snapshot of a running container. `tell` hears how far it is.

    Raises: RuntimeFailure; then there is no snapshot, and the container goes on.
    """
    state = store.load(container_id)
    with (
        Making(state, wish, tell) as making,
        listener.connect(store.path(container_id, "control.sock")) as sock,
    ):
        now = store.load(container_id)
        if (now.pid, now.pid_start) != (state.pid, state.pid_start):  # one of its name answers
            raise NotRunning(container_id)
        listener.send(sock, making.request, making.fds)
        answers = select.poll()
        answers.register(sock, select.POLLIN)
        while not answers.poll(None if tell is silent else LOOK_MS):
            tell("writing memory", making.written, 0)
        making.finish(listener.answer(sock, math.inf))
        if not wish.leave_running:  # before the connection ends: it stands still until then
            lifecycle.signal(store, state, signal.SIGKILL, False, 1)
    if not wish.leave_running:
        with suppress(RuntimeFailure):  # it may be gone already
            lifecycle.wait(store, container_id, 1)


def _parent(wish: Wish) -> tuple[str, Parent]:
    """Raises: RuntimeFailure."""
    data = _read(wish.parent)
    manifest = _decoded(wish.parent, data)
    if not manifest.name:
        raise RuntimeFailure(f"{wish.parent}: nothing can build on a snapshot of version 1")
    path = os.path.relpath(os.path.realpath(wish.parent), os.path.realpath(wish.folder))
    return manifest.name, Parent(path, hashlib.sha256(data).hexdigest())


def _manifest(state: State, made: Made, wish: Wish, parent: Parent | None) -> Manifest:
    """Raises: RuntimeFailure."""
    from runsc import __version__  # noqa: PLC0415

    own = {name: text for name, text in state.annotations.items() if name.startswith("dev.runsc.")}
    if OF_API in own and made.decided is not None:
        if made.decided.egress is not None:  # under a seal of ours
            check_told(made.decided.egress, state.brokers)
        own[DECIDED] = msgspec.json.encode(made.decided).decode()
    return Manifest(
        program=__version__,
        container=state.id,
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        platform=made.platform,
        annotations=own,
        compression=wish.compression,
        objects_size=made.objects_size,
        objects_check=made.objects_check,
        pages=made.pages,
        piece=made.piece,
        checks=tuple(made.checks),
        name=made.name,
        own=made.own,
        origins=tuple(made.origins),
        parent=parent,
    )


def _packer() -> Any:
    """Of Python 3.14, or of the extra. Raises: RuntimeFailure."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        try:
            from backports import zstd  # noqa: PLC0415
        except ImportError:
            raise RuntimeFailure("compression zstd needs Python 3.14 or runsc[images]") from None
    return zstd


def _pack(zstd: Any, pages: Any, packed: Any, tell: Tell) -> None:
    """Compress the file of pages into another one."""
    checked = {zstd.CompressionParameter.checksum_flag: 1}
    with pages, zstd.ZstdFile(packed, "wb", options=checked) as target:
        size = pages.seek(0, os.SEEK_END)
        pages.seek(0)
        while data := pages.read(PIECE):
            target.write(data)
            tell("compressing", pages.tell(), size)


Take = Callable[[int, bytes, int], object]
"""Write a piece of a file, which begins at a place, as far as it is needed."""


def _written(fd: int, data: bytes, at: int) -> None:
    view, done = memoryview(data), 0
    while done < len(data):
        done += os.pwrite(fd, view[done:], at + done)


class _Taking:
    """Of a snapshot on which another one builds: the pages that are needed, so that a chain takes
    no more room than the memory that it makes."""

    def __init__(self, folder: str, checks: Sequence[int], needed: bytearray) -> None:
        from sentry.state.pages import check_of  # noqa: PLC0415  few build on others

        self._check_of = check_of
        self._folder = folder
        self._checks = checks
        self._needed = needed

    def __call__(self, fd: int, data: bytes, at: int) -> None:
        """Raises: RuntimeFailure, OSError."""
        first, count = at // PAGE, len(data) // PAGE
        wanted = self._needed[first : first + count]
        page = wanted.find(1)
        if page < 0:
            return
        piece = at // PIECE
        if piece >= len(self._checks) or self._check_of(data) != self._checks[piece]:
            raise RuntimeFailure(f"{self._folder}/{PAGES}: damaged")
        while page >= 0:
            end = wanted.find(0, page)
            end = count if end < 0 else end
            _written(fd, data[page * PAGE : end * PAGE], at + page * PAGE)
            page = wanted.find(1, end)


def _unpacked(folder: str, packed: Any, size: int, take: Take, tell: Tell) -> int:
    """A file without a name of this size. Raises: RuntimeFailure."""
    zstd = _packer()
    left = size
    try:
        with tempfile.TemporaryFile(dir=folder) as plain, zstd.ZstdFile(packed) as source:
            while data := source.read(PIECE):
                left -= len(data)
                if left < 0 or len(data) % PAGE:
                    break
                take(plain.fileno(), data, size - left - len(data))
                tell("decompressing memory", size - left, size)
            plain.truncate(size)
            if left:
                raise RuntimeFailure(f"{folder}/{PAGES}: damaged: it has another size")
            return os.dup(plain.fileno())
    except (zstd.ZstdError, EOFError) as error:
        raise RuntimeFailure(f"{folder}/{PAGES}: damaged: {error}") from None
    except OSError as error:
        raise RuntimeFailure(f"{folder}: {why(error)}") from None
