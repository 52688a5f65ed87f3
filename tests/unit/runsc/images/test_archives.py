"""Places of images: folders and archives, of which nothing else is read."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from runsc.images import archives
from runsc.images.archives import Archive, Layout, Plain, document
from runsc.images.errors import ImageError
from tests.unit.runsc.images.making import archive, file, folder, hard, layout, link, packed, saved


def opened(path: Path, data: bytes) -> Archive | None:
    """The archive in a file, which stays open."""
    path.write_bytes(data)
    return Archive.of(os.open(path, os.O_RDONLY), len(data))


def of(tmp_path: Path, data: bytes) -> Archive:
    found = opened(tmp_path / "archive", data)
    assert found is not None
    return found


def test_archive_is_read_in_place(tmp_path: Path) -> None:
    files = layout(archive(file("one")))
    found = of(tmp_path, packed(files))
    assert all(found.has(name) and document(found, name) == data for name, data in files.items())
    assert not found.has("blobs")


def test_names_are_found_however_they_are_written(tmp_path: Path) -> None:
    found = of(tmp_path, archive(folder("./"), file("./manifest.json", b"[]"), file("a//b", b"x")))
    assert (document(found, "manifest.json"), document(found, "a/b")) == (b"[]", b"x")


def test_links_of_docker_lead_to_layers_of_the_archive(tmp_path: Path) -> None:
    entries = file("manifest.json", b"[]"), file("one/layer.tar", b"x"), hard("h", "one/layer.tar")
    more = link("two/layer.tar", "../one/layer.tar"), link("three", "two/layer.tar")
    found = of(tmp_path, archive(*entries, *more))
    assert all(document(found, name) == b"x" for name in ("h", "two/layer.tar", "three"))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "self", "missing"])
def test_links_lead_nowhere_else(tmp_path: Path, target: str) -> None:
    found = of(tmp_path, archive(file("manifest.json"), link("self", target)))
    with pytest.raises(ImageError, match="has no 'self'"):
        document(found, "self")


def test_tar_without_an_image_is_none(tmp_path: Path) -> None:
    data = archive(folder("etc"), file("etc/passwd", b"root:x:0:0::/:/bin/sh"), file("oci-layout"))
    assert opened(tmp_path / "root", data) is None


def test_tar_of_many_files_is_no_archive_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    data = archive(*(file(name) for name in ("a", "b", "manifest.json", "c")))
    assert opened(tmp_path / "root", data) is None


def test_archive_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    data = packed(saved(archive(file("one", bytes(5000)))))
    with pytest.raises(ImageError, match="cut short"):
        opened(tmp_path / "archive", data[:6000])


def test_folder_gives_files_of_its_own_alone(tmp_path: Path) -> None:
    inside = tmp_path / "layout"
    (inside / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (inside / "file").write_bytes(b"x")
    (inside / "link").symlink_to("file")
    (inside / "out").symlink_to(tmp_path)
    os.mkfifo(inside / "fifo")
    place = Layout(str(inside))
    assert document(place, "file") == b"x"
    outside = "link", "out/secret", "../secret", "folder/../file", "/etc/passwd", "a\0", "./file"
    for name in outside:
        with pytest.raises(ImageError, match="has no"):
            document(place, name)
    for name in ("folder", "fifo"):
        with pytest.raises(ImageError, match="which is no file"):
            document(place, name)


def test_large_document_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "index.json").open("wb") as made:
        made.truncate(1 << 40)
    with pytest.raises(ImageError, match="of 1099511627776 bytes"):
        document(Layout(str(tmp_path)), "index.json")


def test_tar_of_a_root_is_its_only_layer(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"0123")
    place = Plain(os.open(tmp_path / "root", os.O_RDONLY), 4)
    assert (document(place, ""), place.has("x")) == (b"0123", False)


def test_special_files_of_an_archive_are_no_files(tmp_path: Path) -> None:
    found = of(tmp_path, archive(file("manifest.json"), file("fifo", type=tarfile.FIFOTYPE)))
    with pytest.raises(ImageError, match="has no 'fifo'"):
        document(found, "fifo")
