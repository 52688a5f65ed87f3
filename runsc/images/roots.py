"""`root_of`: a root file system from whatever there is of one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from runsc.accounts import MAX_FILE, Ids, ids_of
from runsc.errors import FULL, why
from runsc.images import local
from runsc.images.archives import LAYOUT, Archive, Layout, Place, Plain
from runsc.images.cache import NAMES, VERSION, Cache, Form, Kept, Known, Whole, default_place, form
from runsc.images.documents import ImageConfig
from runsc.images.erofs import Writer
from runsc.images.errors import ImageError, shown
from runsc.images.folder import Folder
from runsc.images.image import SHA256, Image, digest_of, image_in, saved_in
from runsc.images.layer import Layer, Store, apply
from runsc.images.streams import (
    HEAD,
    PIECE,
    Budget,
    Counted,
    Hashed,
    Part,
    Stream,
    Watched,
    format_of,
    opened,
    write_all,
)
from runsc.images.tree import Tree
from runsc.progress import Tell, silent
from sentry.abi.stat import EROFS_SUPER_MAGIC_V1
from sentry.fs.erofs.layout import SUPER_OFFSET

LIMIT_BYTES: Final = 16 << 30
"""What an image may be, decompressed, unless the caller says otherwise."""
MAGIC: Final = EROFS_SUPER_MAGIC_V1.to_bytes(4, "little")
Reading = Callable[[Place, str | None], Image]


class ImageRoot(msgspec.Struct, frozen=True):
    """A root file system, and how what is in it wants to be run."""

    path: Path
    """A folder, or a file that is an image of EROFS. What the cache has is shared by all that use
    it: run it under an overlay, or read-only."""
    config: ImageConfig
    digest: str | None
    """Of the image's configuration, or of the tar; None of what was taken as it is."""
    passwd: bytes = b""
    """What of /etc/passwd and /etc/group is known, which is nothing of what was taken as it is."""
    group: bytes = b""

    def ids(self, user: str | None = None) -> Ids:
        """Who `user` is, NAME or UID, perhaps :GROUP or :GID; None: the image's own.

        Raises: RuntimeFailure.
        """
        return ids_of(self.config.user if user is None else user, self.passwd, self.group)


def root_of(
    source: str | Path,
    *,
    cache: Path | None = None,
    limit_bytes: int | None = None,
    tell: Tell = silent,
) -> ImageRoot:
    """The root file system that `source` is, or that is made of it once and then kept.

    `source`: a folder that is a root, or an OCI layout; a file: an image of EROFS, a tar of a root,
    an OCI archive or one of `docker save`, these three also compressed (gzip, bzip2, xz, zstd); the
    name of an image that podman or Docker has; or skopeo's word for one: oci:PATH[:TAG],
    oci-archive:PATH[:TAG], docker-archive:PATH[:NAME], containers-storage:NAME, docker-daemon:NAME.
    A `Path` is never a name. `cache`: a folder of this user's alone; None: that of
    `runsc.images.cache.default_place`. `limit_bytes`: what an image may be when it is decompressed,
    and made if it is not in the cache; None: `LIMIT_BYTES`. `tell`: hears how far it is.
    Raises: ImageError, one line that says why not. Then nothing is left behind.
    """
    name = os.fspath(source)
    if "\0" in name:
        raise ImageError(f"image {shown(name)} is no name: it has a NUL")
    limit = LIMIT_BYTES if limit_bytes is None else limit_bytes
    finder = _Finder(default_place() if cache is None else os.fspath(cache), limit, tell)
    try:
        return finder.find(name) if isinstance(source, str) else finder.at(name)
    except ImageError as error:
        raise ImageError(f"image {name} {error}", hint=error.hint) from None
    except OSError as error:
        place = error.filename
        if place is None and error.errno in FULL:
            place = finder.place
        where = f" ({shown(place)})" if isinstance(place, str | bytes) else ""
        raise ImageError(f"image {name} cannot be used: {why(error)}{where}") from None


class _Finder:
    def __init__(self, place: str, limit_bytes: int, tell: Tell) -> None:
        self.place = place
        self._limit = limit_bytes
        self._tell = tell

    @cached_property
    def _cache(self) -> Cache:
        """Made when something has to be kept."""
        return Cache(self.place)

    def find(self, name: str) -> ImageRoot:
        """By what a person calls it."""
        transport, _, rest = name.partition(":")
        if transport in ("oci", "oci-archive"):
            return self.at(*_with_tag(rest), reading=image_in)
        if transport == "docker-archive":
            return self.at(*_with_tag(rest), reading=saved_in)
        if transport == "docker-daemon":
            return self._stored(rest, ("docker",))
        if transport == "containers-storage":
            return self._stored(rest, ("podman",))
        return self.at(name) if os.path.lexists(name) else self._stored(name, local.ENGINES)

    def at(self, path: str, tag: str | None = None, reading: Reading | None = None) -> ImageRoot:
        """What lies there. With `reading` it has to be an image, which that understands."""
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            place = Layout(path)
            if reading is None and not place.has(LAYOUT):
                return _as_it_is(path)
            return self._made((reading or image_in)(place, tag), place)
        if not stat.S_ISREG(info.st_mode):
            raise ImageError("is neither a folder nor a file")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.pread(fd, SUPER_OFFSET + len(MAGIC), 0)
            if head[SUPER_OFFSET:] == MAGIC and reading is None:
                return _as_it_is(path)
            if format_of(head[:HEAD]) is None:
                return self._archived(fd, info.st_size, tag, reading)
            return self._compressed(Part(fd, 0, info.st_size), tag, reading)
        finally:
            os.close(fd)

    def _compressed(self, part: Part, tag: str | None, reading: Reading | None) -> ImageRoot:
        """An archive that is decompressed first, unless what comes of it is known."""
        digest = Hashed(self._watched("reading", Part(part.fd, 0, part.size))).digest()
        key = (digest_of(f"{digest} {tag}".encode()) if tag else digest).removeprefix(SHA256)
        found = self._known(key)
        if found is not None:
            return found
        source = Counted(opened(self._watched("decompressing", part)), Budget(self._limit))
        with self._cache.spool() as spool:
            size = 0
            while data := source.read(PIECE):
                write_all(spool.fileno(), data, size)
                size += len(data)
            return self._archived(spool.fileno(), size, tag, reading, key)

    def _archived(
        self, fd: int, size: int, tag: str | None, reading: Reading | None, key: str | None = None
    ) -> ImageRoot:
        """A tar: an image, or a root."""
        archive = Archive.of(fd, size)
        if archive is not None:
            return self._made((reading or image_in)(archive, tag), archive, key)
        if reading is not None:
            raise ImageError("is no archive of an image")
        digest = Hashed(self._watched("reading", Part(fd, 0, size))).digest()
        image = Image(ImageConfig(), digest, (Layer("", None, digest),))
        return self._made(image, Plain(fd, size), key)

    def _stored(self, name: str, engines: tuple[local.Engine, ...]) -> ImageRoot:
        """An image in an engine's store."""
        found = local.find(name, engines)
        if found is None:
            raise ImageError(
                f"is no file, and no image that {' or '.join(engines)} has",
                hint="nothing is fetched here: `podman pull` or `docker pull` it first",
            )
        engine, key = found
        known = self._known(key)
        if known is not None:
            return known
        with self._cache.spool() as spool:
            what = f"saving from {engine}"
            budget = Budget(self._limit)
            size = local.save(
                engine, key, spool.fileno(), budget, lambda done: self._tell(what, done, 0)
            )
            archive = Archive.of(spool.fileno(), size)
            if archive is None:
                raise ImageError(f"is nothing that {engine} could save")
            return self._made(saved_in(archive), archive, key)

    def _watched(self, what: str, part: Part) -> Stream:
        """The same bytes; who asked for all this hears how far they are."""
        done = 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            self._tell(what, done, part.size)

        return Watched(part, more) if self._tell is not silent else part

    # --- roots

    def _known(self, key: str) -> ImageRoot | None:
        """The root of an image that was seen before, by this digest."""
        known = self._cache.known(key)
        kept = self._cache.root(known.chain, form()) if known is not None else None
        if known is None or kept is None:
            return None
        return _kept(kept, known.config, known.digest)

    def _made(self, image: Image, place: Place, key: str | None = None) -> ImageRoot:
        """The root of an image, from the cache or new. Who asks for `key` next finds it there."""
        cache, kind, chain = self._cache, form(), image.chain
        kept = cache.root(chain, kind)
        if kept is None:
            kept = cache.make(chain, kind, lambda folder: self._fill(folder, kind, image, place))
        if key is not None:
            cache.remember(key, Known(VERSION, image.digest, chain, image.config))
        return _kept(kept, image.config, image.digest)

    def _fill(self, folder: str, kind: Form, image: Image, place: Place) -> Whole:
        budget, tree = Budget(self._limit), Tree()
        path = os.path.join(folder, NAMES[kind])
        store = _store(folder, kind, image.chain, budget)
        try:
            for number, layer in enumerate(image.layers, 1):
                try:
                    with place.opened(layer.blob) as part:
                        what = f"unpacking layer {number} of {len(image.layers)}"
                        apply(layer, self._watched(what, part), budget, tree, store)
                except ImageError as error:
                    which = f"has layer {number}, which " if layer.blob else ""
                    raise ImageError(f"{which}{error}") from None
            if not tree.root.children:
                raise ImageError("holds no files")
            accounts = [_read(store, tree, name) for name in (b"etc/passwd", b"etc/group")]
            store.finish(tree)
        finally:
            store.close()
        return Whole(VERSION, os.stat(path).st_size if kind == "erofs" else 0, *accounts)


def _store(folder: str, kind: Form, chain: str, budget: Budget) -> Store:
    if kind == "folder":
        return Folder(folder, NAMES[kind])
    return Writer(os.path.join(folder, NAMES[kind]), bytes.fromhex(chain[:32]), budget)


def _with_tag(text: str) -> tuple[str, str | None]:
    """PATH or PATH:TAG, of which TAG may have colons, too."""
    if os.path.lexists(text):
        return text, None
    path, _, tag = text.partition(":")
    return path, tag or None


def _as_it_is(path: str) -> ImageRoot:
    return ImageRoot(Path(os.path.realpath(path)), ImageConfig(), None)


def _kept(kept: Kept, config: ImageConfig, digest: str) -> ImageRoot:
    return ImageRoot(Path(kept.path), config, digest, kept.whole.passwd, kept.whole.group)


def _read(store: Store, tree: Tree, name: bytes) -> bytes:
    """A small file without holes; nothing if it is none."""
    node = tree.find(name)
    if node is None or node.content is None or node.content.chunks is not None:
        return b""
    return store.read(node.content, min(node.size, MAX_FILE))
