"""No image makes anything but a root file system below its place, or an error of one line.

Entries of archives are of every kind, with names that lead everywhere; archives and images that are
right are spoiled in some bytes; documents have other values. What comes of it is an image of EROFS
that says what the tree says, and nothing else is left.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from runsc.images import ImageError, roots
from runsc.images.erofs import Writer
from runsc.images.layer import Layer, apply
from runsc.images.streams import Budget
from runsc.images.tree import Node, Tree
from sentry.errors import EUCLEAN
from sentry.fs.erofs import layout
from sentry.fs.erofs.xattrs import find_xattrs
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.fuzz.test_config_json import VALUES
from tests.unit.runsc.images.making import (
    Files,
    archive,
    blob,
    digest_of,
    extended,
    file,
    folder,
    hard,
    index,
    link,
    packed,
    patched,
    record,
    saved,
    xattrs,
)
from tests.unit.runsc.images.making import layout as image
from tests.unit.runsc.images.test_erofs import SPARSE, sparse
from tests.unit.runsc.images.test_streams import Bytes

LIMIT = 1 << 20
Change = tuple[int, int, bytes]

# --- entries

PARTS = st.sampled_from(
    ["a", "b", "l", "..", ".", "", ".wh.a", ".wh.l", ".wh..wh..opq", ".wh..wh.x", ".wh.", ".wh...",
     "n" * 255, "n" * 256, "\udcff", "\n"]
)  # fmt: skip
PATHS = st.lists(PARTS, max_size=4).map("/".join)
KINDS = st.sampled_from([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"])
ENTRIES = st.tuples(PATHS, KINDS, PATHS, st.integers(0, 9000), st.integers(0, 0o7777))
LAYERS = st.lists(st.lists(ENTRIES, max_size=12), min_size=1, max_size=3)


class Memory:
    """An image of EROFS as `layout` reads one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def check(self, offset: int, size: int) -> None:
        if size < 0 or not 0 <= offset <= self.size - size:
            raise EUCLEAN(f"{size} bytes at {offset}")

    def read(self, offset: int, size: int) -> bytes:
        self.check(offset, size)
        return self.data[offset : offset + size]


def in_image(data: bytes) -> dict[bytes, tuple[object, ...]]:
    """What is in an image, by path."""
    held: Any = Memory(data)
    of = layout.read_super(held)
    found: dict[bytes, tuple[object, ...]] = {}

    def below(number: int, path: bytes) -> None:
        node = layout.read_node(held, of, number)
        found[path] = _described(held, of, node)
        if not stat.S_ISDIR(node.mode):
            return
        for at in range(0, node.size, of.block_size):
            size = min(of.block_size, node.size - at)
            for name, inner, _ in layout.entries(layout.contents(held, of, node, at, size)):
                if name not in (b".", b".."):
                    below(inner, path + b"/" + name)

    below(of.root, b"")
    return found


def _described(held: Any, of: layout.Super, node: layout.Node) -> tuple[object, ...]:
    inside = b""
    if stat.S_ISREG(node.mode) or stat.S_ISLNK(node.mode):
        inside = layout.contents(held, of, node, 0, node.size)
    attributes = {
        name: held.read(*place) for name, place in find_xattrs(held, of, node).items()
    }
    return node.mode, node.uid, node.nlink, inside, attributes


def in_tree(tree: Tree) -> dict[bytes, tuple[int, int]]:
    """Mode and number of names of each path."""
    found: dict[bytes, tuple[int, int]] = {}

    def below(node: Node, path: bytes) -> None:
        found[path] = node.mode, node.links
        for name, child in (node.children or {}).items():
            assert name not in (b"", b".", b"..") and b"/" not in name and len(name) < 256
            below(child, path + b"/" + name)

    below(tree.root, b"")
    return found


def check_entries(layers: list[list[tuple[str, bytes, str, int, int]]]) -> None:
    tars = [
        archive(*(
            file(
                path, b"x" * (size if kind in b"07" else 0), type=kind, mode=mode,
                linkname=target if kind in b"12" else "", devmajor=size & 0xFF,
                pax_headers=xattrs(user_a="1") if size & 1 else {},
            )
            for path, kind, target, size, mode in entries
        ))
        for entries in layers
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        made, tree, budget = Path(place) / "image", Tree(), Budget(LIMIT)
        store = Writer(str(made), bytes(16), budget)
        try:
            with bounded(layers):
                for one in tars:
                    apply(Layer("", None, digest_of(one)), Bytes(one), budget, tree, store)
                store.finish(tree)
        except ImageError as error:
            assert str(error).isprintable()
            return
        finally:
            store.close()
        found = in_image(made.read_bytes())
    assert {path: (each[0], each[2]) for path, each in found.items()} == in_tree(tree)


@for_a_while()
def test_entries_make_a_tree_or_are_refused(seconds: float) -> None:
    explore(seconds, check_entries, 100, layers=LAYERS)


@kept("images")
def test_kept_entries_make_a_tree_or_are_refused(case: Any) -> None:
    check_entries(case)


# --- bytes

ROOT = archive(
    folder("d"), file("d/f", b"contents" * 40, pax_headers=xattrs(user_a="1")), link("l", "d/f"),
    hard("h", "d/f"), file("ü" * 90), form=tarfile.PAX_FORMAT,
)  # fmt: skip
GOOD = (
    ROOT,
    sparse("holes", b"a" * 200 + b"b" * 3 + b"end", SPARSE) + ROOT,
    extended(record("path", b"other")) + ROOT,
    archive(file("x" * 200, b"1", uid=1 << 31), link("l", "y" * 200), form=tarfile.GNU_FORMAT),
    gzip.compress(ROOT),
    packed(image(ROOT, archive(file(".wh.h")))),
    packed(saved(ROOT)),
)
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 1 << 15),
        st.integers(0, 3),
        st.one_of(
            st.binary(min_size=1, max_size=12),
            st.sampled_from([b"\0" * 12, b"\xff" * 12, b"\x80" + b"\xff" * 11, b"7" * 11 + b"\0"]),
        ),
    ),
    max_size=4,
)


def spoiled(data: bytes, changes: list[Change]) -> bytes:
    """With other bytes, headers with other fields and right checksums, or shorter."""
    for at, how, field in changes:
        place = at % (len(data) + 1)
        if how == 0:
            data = data[:place]
        elif how == 1:
            block = place & ~511
            data = data[:block] + patched(data[block:].ljust(512, b"\0"), place % 500, field)
        else:
            data = data[:place] + field + data[place + len(field) :]
    return data


def check_source(data: bytes) -> None:
    """A file of these bytes becomes a root, or an error."""
    with tempfile.TemporaryDirectory() as place:
        source, cache = Path(place) / "source", Path(place) / "cache"
        source.write_bytes(data)
        try:
            with bounded(data[:64]):
                root = roots.root_of(source, cache=cache, limit_bytes=LIMIT)
            assert root.path.exists()
            if root.path != source:
                in_image(root.path.read_bytes())
        except ImageError as error:
            assert str(error).isprintable()
        assert not cache.exists() or os.listdir(cache / "making") == []
        assert sorted(os.listdir(place)) in (["cache", "source"], ["source"])


def check_spoiled(which: int, changes: list[Change]) -> None:
    check_source(spoiled(GOOD[which], changes))


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots are images, whoever runs the test: devices of chance are made on no host."""
    monkeypatch.setattr(roots, "form", lambda: "erofs")


@for_a_while()
@pytest.mark.usefixtures("as_user")
def test_spoiled_source_becomes_a_root_or_is_refused(seconds: float) -> None:
    explore(
        seconds, check_spoiled, 100, which=st.integers(0, len(GOOD) - 1), changes=CHANGES
    )


@kept("spoiled_images")
@pytest.mark.usefixtures("as_user")
def test_kept_source_becomes_a_root_or_is_refused(case: dict[str, Any]) -> None:
    check_spoiled(**case)


# --- documents

FIELDS = st.sampled_from(
    ["mediaType", "digest", "size", "platform", "annotations", "manifests", "config", "layers",
     "rootfs", "diff_ids", "os", "architecture", "Env", "Cmd", "User", "Volumes", "Config",
     "Layers", "RepoTags", "x"]
)  # fmt: skip
PLACES = st.sampled_from(["index", "manifest", "config", "running", "layer", "saved"])


def check_documents(changes: list[tuple[str, str, Any]]) -> None:
    """An image in which documents have other values, with digests that are right for them."""
    tables: dict[str, dict[str, Any]] = {
        name: {field: value for place, field, value in changes if place == name}
        for name in ("index", "manifest", "config", "running", "layer", "saved")
    }
    files: Files = {}
    layer = blob(files, ROOT, "tar") | tables["layer"]
    config = {
        "config": {"Env": ["A=1"], "User": "0"} | tables["running"],
        "rootfs": {"diff_ids": [digest_of(ROOT)]},
    } | tables["config"]
    described = blob(files, json.dumps(config).encode())
    manifest = {"config": described, "layers": [layer]} | tables["manifest"]
    index(files, blob(files, json.dumps(manifest).encode()) | tables["index"])
    check_source(packed(files))
    entry = {"Config": "config", "Layers": ["layer"]} | tables["saved"]
    old = {"config": json.dumps(config).encode(), "layer": ROOT}
    check_source(packed(old | {"manifest.json": json.dumps([entry]).encode()}))


@for_a_while()
@pytest.mark.usefixtures("as_user")
def test_documents_with_other_values_are_taken_or_refused(seconds: float) -> None:
    changes = st.lists(st.tuples(PLACES, FIELDS, VALUES), max_size=4)
    explore(seconds, check_documents, 60, changes=changes)
