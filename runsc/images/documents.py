"""The documents of images as typed values: OCI image specification 1.1, and `docker save`'s.

Taken from them is what a root file system, and a process in it, need; the rest is not looked at.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from runsc.images.errors import ImageError, shown

MAX_DOCUMENT: Final = 4 << 20
"""Bytes: as engines bound them."""
MAX_LAYERS: Final = 1024
OS, ARCHITECTURE = "linux", "amd64"
REFERENCE: Final = "org.opencontainers.image.ref.name"

Digest = Annotated[str, msgspec.Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class ImageConfig(msgspec.Struct, frozen=True):
    """How an image wants to be run: config.md, "config". Empty is what it does not say."""

    env: tuple[str, ...] = ()
    """NAME=VALUE."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    """user, uid, user:group, uid:gid: names are those of the image."""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()


class _Camel(msgspec.Struct, rename="camel", gc=False):
    """Names as in OCI's documents."""


class _Pascal(msgspec.Struct, rename="pascal", gc=False):
    """Names as in Docker's."""


class Platform(_Camel):
    """image-index.md, "platform"."""

    architecture: str = ""
    os: str = ""


class Descriptor(_Camel):
    """descriptor.md."""

    digest: Digest
    size: Size
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(_Camel):
    """image-index.md."""

    manifests: list[Descriptor]


class Manifest(_Camel):
    """manifest.md."""

    config: Descriptor
    layers: Annotated[list[Descriptor], msgspec.Meta(max_length=MAX_LAYERS)]


class Either(_Camel):
    """What tells an index from a manifest."""

    manifests: Any = None


class Running(_Pascal):
    """config.md, "config"."""

    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    stop_signal: str | None = None
    volumes: dict[str, Any] | None = None


class RootFs(msgspec.Struct):
    """config.md, "rootfs"."""

    diff_ids: Annotated[list[Digest], msgspec.Meta(max_length=MAX_LAYERS)]


class Config(_Camel):
    """config.md."""

    rootfs: RootFs
    architecture: str = ""
    os: str = ""
    config: Running | None = None


class Saved(_Pascal):
    """An entry of manifest.json of `docker save`."""

    config: str
    layers: Annotated[list[str], msgspec.Meta(max_length=MAX_LAYERS)]
    repo_tags: list[str] | None = None


T = TypeVar("T")


def decode(data: bytes, kind: type[T], name: str) -> T:
    """A document. Raises: ImageError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImageError(f"has a wrong {shown(name)}: {error}") from None


def index_or_manifest(data: bytes, name: str) -> Index | Manifest:
    """What is in it tells which: its media type may be left out. Raises: ImageError."""
    is_index = decode(data, Either, name).manifests is not None
    return decode(data, Index, name) if is_index else decode(data, Manifest, name)


def chosen(manifests: list[Descriptor], tag: str | None) -> Descriptor:
    """The one for this platform, and of this name if one is asked for. Raises: ImageError."""
    named = [each for each in manifests if tag in (None, _reference(each))]
    if tag is not None and not named:
        raise ImageError(f"has nothing of the name {shown(tag)}{_names(manifests)}")
    found = {each.digest: each for each in named if _is_ours(each.platform)}
    if not found:
        raise ImageError(f"is not for {OS}/{ARCHITECTURE}")
    best = [each for each in found.values() if each.platform is not None] or [*found.values()]
    if len({_reference(each) for each in best}) > 1:
        raise ImageError(f"holds several images: name one of them{_names(best)}")
    return best[0]


def _is_ours(platform: Platform | None) -> bool:
    return platform is None or (platform.os, platform.architecture) == (OS, ARCHITECTURE)


def _reference(descriptor: Descriptor) -> str | None:
    return (descriptor.annotations or {}).get(REFERENCE)


def _names(manifests: list[Descriptor]) -> str:
    names = sorted({shown(name) for each in manifests if (name := _reference(each)) is not None})
    return f" ({', '.join(names[:10])})" if names else ""


def check_platform(config: Config) -> None:
    """Raises: ImageError if it says that it is for another one."""
    said = config.os or OS, config.architecture or ARCHITECTURE
    if said != (OS, ARCHITECTURE):
        raise ImageError(f"is for {shown('/'.join(said))}, not for {OS}/{ARCHITECTURE}")


def running(config: Config) -> ImageConfig:
    """How it wants to be run. Raises: ImageError where that could be told to no process."""
    said = config.config or Running()
    found = ImageConfig(
        env=tuple(said.env or ()),
        entrypoint=tuple(said.entrypoint or ()),
        cmd=tuple(said.cmd or ()),
        working_dir=said.working_dir or "",
        user=said.user or "",
        stop_signal=said.stop_signal or "",
        volumes=tuple(sorted(said.volumes or ())),
    )
    lists = found.env + found.entrypoint + found.cmd + found.volumes
    if any("\0" in text for text in (*lists, found.working_dir, found.user, found.stop_signal)):
        raise ImageError("has a configuration with a NUL")
    return found
