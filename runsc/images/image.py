"""What an image is made of: its manifest for this platform, its configuration, its layers.

OCI image specification 1.1: image-layout.md, image-index.md, manifest.md, config.md. Every document
but the first is found by its digest, and compared with it.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from runsc.images.archives import INDEX, LAYOUT, SAVED, Place, document
from runsc.images.documents import (
    Config,
    Descriptor,
    ImageConfig,
    Index,
    Saved,
    check_platform,
    chosen,
    decode,
    index_or_manifest,
    running,
)
from runsc.images.errors import ImageError, shown
from runsc.images.layer import Layer

MAX_NESTED: Final = 4
"""Indexes that lead to each other."""
SHA256: Final = "sha256:"


class Image(msgspec.Struct, frozen=True):
    """An image, understood."""

    config: ImageConfig
    digest: str
    """Of its configuration: what engines call the id of an image."""
    layers: tuple[Layer, ...]
    """From the lowest one on."""

    @property
    def chain(self) -> str:
        """What its root file system is known by: 64 digits, from what its layers hold.

        config.md, "Layer ChainID".
        """
        first, *others = (layer.diff_id for layer in self.layers)
        for diff_id in others:
            first = digest_of(f"{first} {diff_id}".encode())
        return first.removeprefix(SHA256)


def digest_of(data: bytes) -> str:
    """sha256:…"""
    return SHA256 + hashlib.sha256(data).hexdigest()


def image_in(place: Place, tag: str | None = None) -> Image:
    """The image of a place, or the one of this name in it. Raises: ImageError, OSError."""
    if place.has(LAYOUT):
        return _of_layout(place, tag)
    if place.has(SAVED):
        return saved_in(place, tag)
    raise ImageError(f"is no image: it has neither {LAYOUT} nor {SAVED}")


def _of_layout(place: Place, tag: str | None) -> Image:
    found = index_or_manifest(document(place, INDEX), INDEX)
    nested = 0
    while isinstance(found, Index):
        if nested == MAX_NESTED:
            raise ImageError("has indexes that lead to nothing but each other")
        nested += 1
        descriptor = chosen(found.manifests, tag)
        found = index_or_manifest(_blob(place, descriptor), descriptor.digest)
        tag = None
    config = decode(_blob(place, found.config), Config, found.config.digest)
    for layer in found.layers:
        if layer.media_type and "tar" not in layer.media_type:
            raise ImageError(f"has a layer of the kind {shown(layer.media_type)}")
    blobs: list[tuple[str, str | None]] = [
        (_name(layer.digest), layer.digest) for layer in found.layers
    ]
    return _understood(config, found.config.digest, blobs)


def saved_in(place: Place, tag: str | None = None) -> Image:
    """An image as `docker save` writes it. Raises: ImageError, OSError."""
    entries = decode(document(place, SAVED), list[Saved], SAVED)
    found = [each for each in entries if tag is None or tag in (each.repo_tags or ())]
    if len(found) != 1:
        names = sorted(name for each in entries for name in each.repo_tags or ())
        raise ImageError(f"holds {len(found)} images: name one of {shown(', '.join(names))}")
    saved = found[0]
    data = document(place, saved.config)
    digest = digest_of(data)
    name = saved.config.rpartition("/")[2].removesuffix(".json")
    if len(name) == 64 and SHA256 + name != digest:
        raise ImageError(f"has {shown(saved.config)}, which is not what it should be")
    return _understood(
        decode(data, Config, saved.config), digest, [(layer, None) for layer in saved.layers]
    )


def _understood(config: Config, digest: str, blobs: list[tuple[str, str | None]]) -> Image:
    check_platform(config)
    diff_ids = config.rootfs.diff_ids
    if not blobs or len(blobs) != len(diff_ids):
        raise ImageError(f"has {len(blobs)} layers where its configuration has {len(diff_ids)}")
    layers = tuple(
        Layer(blob, blob_digest, diff_id)
        for (blob, blob_digest), diff_id in zip(blobs, diff_ids, strict=True)
    )
    return Image(running(config), digest, layers)


def _name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix(SHA256)}"


def _blob(place: Place, descriptor: Descriptor) -> bytes:
    """A document by its digest. Raises: ImageError, OSError."""
    data = document(place, _name(descriptor.digest))
    if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
        raise ImageError(f"has a {descriptor.digest} that is not what it should be")
    return data
