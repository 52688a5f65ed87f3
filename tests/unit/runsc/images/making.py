"""Makes archives and images with Python's tarfile, as their tools would."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

AS_ROOT = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices"),
]
Entry = tuple[tarfile.TarInfo, bytes]
Files = dict[str, bytes]
Pack = Callable[[bytes], bytes]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


# --- archives


def file(name: str, data: bytes = b"", **fields: Any) -> Entry:
    """A regular file, or what `type` says."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def folder(name: str, mode: int = 0o755, **fields: Any) -> Entry:
    return file(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def link(name: str, target: str, **fields: Any) -> Entry:
    return file(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777, **fields)


def hard(name: str, target: str, **fields: Any) -> Entry:
    return file(name, type=tarfile.LNKTYPE, linkname=target, **fields)


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Entry:
    return file(name, type=kind, devmajor=major, devminor=minor, mode=0o666)


def xattrs(**values: str) -> dict[str, str]:
    """Of names with _ for the first dot, as a value of `pax_headers`."""
    return {f"SCHILY.xattr.{key.replace('_', '.', 1)}": text for key, text in values.items()}


def archive(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for info, data in entries:
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def patched(data: bytes, at: int, field: bytes) -> bytes:
    """An archive whose first header has another field, and the checksum for it."""
    raw = bytearray(data[:512])
    raw[at : at + len(field)] = field
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + data[512:]


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    """A header of pax with these bytes, as it stands before a member."""
    info = tarfile.TarInfo("pax")
    info.size = len(records)
    head = patched(info.tobuf(tarfile.USTAR_FORMAT), 156, kind)
    return head + records + bytes(-len(records) % 512)


def record(key: str, value: bytes) -> bytes:
    """One record of it."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    size = len(rest)
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


# --- images


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob(files: Files, data: bytes, kind: str = "") -> dict[str, Any]:
    """Put a blob; its descriptor."""
    digest = digest_of(data)
    files[f"blobs/sha256/{digest[7:]}"] = data
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def config_of(layers: tuple[bytes, ...], **more: Any) -> bytes:
    """The configuration of an image of these layers."""
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    return json.dumps(document | more).encode()


def manifest(files: Files, *layers: bytes, pack: Pack = bytes, **config: Any) -> dict[str, Any]:
    """Put an image; the descriptor of its manifest."""
    document = {
        "schemaVersion": 2,
        "config": blob(files, config_of(layers, **config), CONFIG),
        "layers": [blob(files, pack(layer), LAYER) for layer in layers],
    }
    return blob(files, json.dumps(document).encode(), MANIFEST)


def index(files: Files, *descriptors: dict[str, Any]) -> Files:
    """Put index.json: a layout."""
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    document = {"schemaVersion": 2, "manifests": list(descriptors)}
    files["index.json"] = json.dumps(document).encode()
    return files


def layout(*layers: bytes, pack: Pack = bytes, **config: Any) -> Files:
    """An image in OCI's layout."""
    files: Files = {}
    return index(files, manifest(files, *layers, pack=pack, **config))


def named(descriptor: dict[str, Any], name: str) -> dict[str, Any]:
    return descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}}


def of_platform(descriptor: dict[str, Any], system: str, architecture: str) -> dict[str, Any]:
    return descriptor | {"platform": {"os": system, "architecture": architecture}}


def saved(*layers: bytes, tags: tuple[str, ...] = ("some:tag",), **config: Any) -> Files:
    """An image as `docker save` writes it."""
    data = config_of(layers, **config)
    name = f"{digest_of(data)[7:]}.json"
    files = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    entry = {"Config": name, "RepoTags": list(tags), "Layers": list(files)}
    return files | {name: data, "manifest.json": json.dumps([entry]).encode()}


def packed(files: Files) -> bytes:
    """The archive of such files."""
    return archive(*(file(name, data) for name, data in files.items()))


def written(files: Files, path: Path) -> Path:
    """The folder of such files."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
