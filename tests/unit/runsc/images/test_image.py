"""Manifests and configurations: the one for this platform, and documents that are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runsc.images.archives import Layout, Place
from runsc.images.errors import ImageError
from runsc.images.image import image_in, saved_in
from tests.unit.runsc.images.making import (
    Files,
    archive,
    blob,
    config_of,
    digest_of,
    file,
    index,
    layout,
    manifest,
    named,
    of_platform,
    saved,
    written,
)

ONE, TWO = archive(file("one")), archive(file("two"))


@pytest.fixture
def place(tmp_path: Any) -> Any:
    """A layout of these files."""
    return lambda files: Layout(str(written(files, tmp_path)))


def test_image_has_its_layers_from_below_and_its_configuration(place: Any) -> None:
    config = {
        "Env": ["A=1", "B="], "Entrypoint": ["/init"], "Cmd": ["x", "y"], "WorkingDir": "/work",
        "User": "web:www", "StopSignal": "SIGQUIT", "Volumes": {"/data": {}, "/cache": {}},
        "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}},
    }  # fmt: skip
    files = layout(ONE, TWO, config=config)
    found = image_in(place(files))
    assert [layer.diff_id for layer in found.layers] == [digest_of(ONE), digest_of(TWO)]
    assert [files[layer.blob] for layer in found.layers] == [ONE, TWO]
    said = found.config
    assert (said.env, said.entrypoint, said.cmd) == (("A=1", "B="), ("/init",), ("x", "y"))
    assert (said.working_dir, said.user, said.stop_signal) == ("/work", "web:www", "SIGQUIT")
    assert said.volumes == ("/cache", "/data")
    assert digest_of(files[f"blobs/sha256/{found.digest[7:]}"]) == found.digest


def test_configuration_may_say_nothing(place: Any) -> None:
    found = image_in(place(layout(ONE, config={"Env": None, "User": None, "Volumes": None})))
    assert (found.config.env, found.config.user, found.config.volumes) == ((), "", ())


def test_root_is_known_by_what_its_layers_hold(place: Any) -> None:
    one, both = image_in(place(layout(ONE))), image_in(place(layout(ONE, TWO)))
    assert one.chain == digest_of(ONE)[7:]
    chain = f"{digest_of(ONE)} {digest_of(TWO)}".encode()
    assert both.chain == digest_of(chain)[7:]


def test_image_for_this_platform_is_chosen(place: Any) -> None:
    files: Files = {}
    arm = of_platform(manifest(files, ONE, architecture="arm64"), "linux", "arm64")
    windows = of_platform(manifest(files, ONE, os="windows"), "windows", "amd64")
    unknown = of_platform(manifest(files, ONE), "unknown", "unknown")
    ours = of_platform(manifest(files, TWO), "linux", "amd64")
    inner = blob(files, json.dumps({"manifests": [arm, windows, unknown, ours]}).encode())
    found = image_in(place(index(files, inner)))
    assert found.layers[0].diff_id == digest_of(TWO)


@pytest.mark.parametrize("others", [{"architecture": "arm64"}, {"os": "windows"}])
def test_image_for_another_platform_is_refused(place: Any, others: dict[str, str]) -> None:
    with pytest.raises(ImageError, match="not for linux/amd64"):
        image_in(place(layout(ONE, **others)))
    files: Files = {}
    said = of_platform(manifest(files, ONE), others.get("os", "linux"), "arm64")
    with pytest.raises(ImageError, match="not for linux/amd64"):
        image_in(place(index(files, said)))


def test_one_of_several_images_has_to_be_named(place: Any) -> None:
    files: Files = {}
    one, two = named(manifest(files, ONE), "v1"), named(manifest(files, TWO), "v2")
    where = place(index(files, one, two))
    assert image_in(where, "v2").layers[0].diff_id == digest_of(TWO)
    with pytest.raises(ImageError, match=r"several images: name one of them \('v1', 'v2'\)"):
        image_in(where)
    with pytest.raises(ImageError, match=r"nothing of the name 'v3' \('v1', 'v2'\)"):
        image_in(where, "v3")


def test_saved_image_is_read(place: Any) -> None:
    files = saved(ONE, TWO, config={"Cmd": ["x"]})
    found = image_in(place(files))
    assert [files[layer.blob] for layer in found.layers] == [ONE, TWO]
    assert found.config.cmd == ("x",)
    assert saved_in(place(files), "some:tag").digest == found.digest
    with pytest.raises(ImageError, match="holds 0 images: name one of 'some:tag'"):
        saved_in(place(files), "other")


def test_saved_configuration_of_another_digest_is_refused(place: Any) -> None:
    files = saved(ONE)
    name = next(name for name in files if name.endswith(".json") and len(name) > 60)
    with pytest.raises(ImageError, match="not what it should be"):
        image_in(place(files | {name: files[name] + b" "}))


def _changed(files: Files, **changes: Any) -> Files:
    """The layout with another manifest: some fields of it changed."""
    descriptor = json.loads(files["index.json"])["manifests"][0]
    document = json.loads(files[f"blobs/sha256/{descriptor['digest'][7:]}"]) | changes
    return index(dict(files), blob(files, json.dumps(document).encode()))


def _files(**changes: Any) -> Files:
    files = layout(ONE)
    changed = _changed(files, **changes)
    return files | changed


def _with_config(config: bytes) -> Files:
    files: Files = {}
    described = blob(files, config)
    made = _files(config=described)
    return made | files


LAYER = {"digest": digest_of(ONE), "size": len(ONE)}
WRONG: dict[str, tuple[Files, str]] = {
    "no image": ({"x": b""}, "is no image"),
    "index of words": ({"oci-layout": b"", "index.json": b"words"}, "wrong 'index.json'"),
    "index of a list": ({"oci-layout": b"", "index.json": b"[]"}, "wrong 'index.json'"),
    "index that is deep": (
        {"oci-layout": b"", "index.json": b'{"manifests":' + b"[" * 100_000}, "wrong 'index.json'",
    ),
    "index of 5 MiB": ({"oci-layout": b"", "index.json": b" " * (5 << 20)}, "of 5242880 bytes"),
    "index of no UTF-8": ({"oci-layout": b"", "index.json": b'{"a":"\xff"}'}, "wrong 'index.json'"),
    "no index": ({"oci-layout": b""}, "has no 'index.json'"),
    "empty index": (index({}), "is not for linux/amd64"),
    "digest of another kind": (index({}, {"digest": "sha512:" + "0" * 128, "size": 1}), "wrong"),
    "digest that is a path": (index({}, {"digest": "sha256:../../etc/passwd", "size": 1}), "wrong"),
    "digest with a newline": (
        index({}, {"digest": f"sha256:{'0' * 64}\n", "size": 1}), "wrong",
    ),
    "size below zero": (index({}, {"digest": digest_of(b""), "size": -1}), "wrong"),
    "missing manifest": (index({}, {"digest": digest_of(b""), "size": 0}), "has no 'blobs/"),
    "size that differs": (
        index(
            {f"blobs/sha256/{digest_of(b'{}')[7:]}": b"{}"},
            {"digest": digest_of(b"{}"), "size": 3},
        ),
        "not what it should be",
    ),
    "manifest that differs": (
        index(
            {f"blobs/sha256/{digest_of(b'{}')[7:]}": b"[]"},
            {"digest": digest_of(b"{}"), "size": 2},
        ),
        "not what it should be",
    ),
    "layers that are not the configuration's": (_files(layers=[LAYER, LAYER]), "has 2 layers"),
    "no layers": (_files(layers=[]), "has 0 layers"),
    "too many layers": (_files(layers=[LAYER] * 1025), "wrong"),
    "layer of another kind": (
        _files(layers=[LAYER | {"mediaType": "application/wasm"}]), "of the kind 'application/wa",
    ),
    "configuration of a chart": (_with_config(b'{"name":"chart"}'), "rootfs"),
    "diff id of words": (_with_config(b'{"rootfs":{"diff_ids":["x"]}}'), "wrong"),
    "environment of numbers": (
        _with_config(config_of((ONE,), config={"Env": [1]})), "wrong",
    ),
    "NUL in the environment": (_with_config(config_of((ONE,), config={"Env": ["A=\0"]})), "NUL"),
    "saved words": ({"manifest.json": b"{}"}, "wrong 'manifest.json'"),
    "saved nothing": ({"manifest.json": b"[]"}, "holds 0 images"),
    "saved path out": (
        {"manifest.json": b'[{"Config":"../../../etc/passwd","Layers":[]}]'}, "has no '",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_document_that_is_wrong_is_refused(what: str, place: Any) -> None:
    files, message = WRONG[what]
    where: Place = place(files)
    with pytest.raises(ImageError, match=message) as found:
        image_in(where)
    assert str(found.value).isprintable()


def test_indexes_that_lead_to_each_other_end(place: Any) -> None:
    files: Files = {}
    inner = manifest(files, ONE)
    for _ in range(4):
        inner = blob(files, json.dumps({"manifests": [inner]}).encode())
    with pytest.raises(ImageError, match="lead to nothing"):
        image_in(place(index(files, inner)))
