"""What layers make of each other: names, links, whiteouts; and paths that mean harm."""

from __future__ import annotations

from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import Any

import pytest

from runsc.images import tree as trees
from runsc.images.errors import ImageError
from runsc.images.tar import HARD_LINK, Member
from runsc.images.tree import Node, Tree, split


def member(path: str, kind: int = S_IFREG, **fields: Any) -> Member:
    given = {"mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 0} | fields
    return Member(path=path.encode(), kind=kind, **given)


def folder(path: str, **fields: Any) -> Member:
    return member(path, S_IFDIR, mode=fields.pop("mode", 0o755), **fields)


def link(path: str, target: str) -> Member:
    return member(path, S_IFLNK, target=target.encode())


def hard(path: str, target: str) -> Member:
    return member(path, HARD_LINK, target=target.encode())


def layered(*layers: list[Member]) -> Tree:
    tree = Tree()
    for members in layers:
        tree.begin_layer()
        for each in members:
            tree.add(each)
    return tree


def names(tree: Tree) -> list[str]:
    """All paths; of folders with a slash, of links with their target."""

    def below(node: Node, path: str) -> list[str]:
        found = []
        for name, child in sorted((node.children or {}).items()):
            here = path + name.decode()
            if child.children is not None:
                found += [f"{here}/", *below(child, f"{here}/")]
            else:
                found.append(f"{here}->{child.target.decode()}" if child.target else here)
        return found

    return below(tree.root, "")


def test_later_layers_add_and_replace() -> None:
    tree = layered(
        [folder("a", uid=1), member("a/one", size=1), member("a/two")],
        [folder("a", uid=2, mode=0o700), member("a/one", size=5), member("b")],
    )
    assert names(tree) == ["a/", "a/one", "a/two", "b"]
    found = tree.find(b"a")
    assert found is not None and (found.uid, found.mode) == (2, S_IFDIR | 0o700)
    assert [tree.find(name).size for name in (b"a/one", b"/a/two")] == [5, 0]  # type: ignore[union-attr]


def test_root_is_described_by_its_own_entry() -> None:
    tree = layered([folder("./", mode=0o711, uid=7)])
    assert (tree.root.mode, tree.root.uid, names(tree)) == (S_IFDIR | 0o711, 7, [])
    with pytest.raises(ImageError, match="root that is no folder"):
        layered([member("./")])


def test_missing_folders_are_made_and_folders_are_merged() -> None:
    tree = layered([member("a/b/c")], [member("a/b/d"), folder("a/b")])
    assert names(tree) == ["a/", "a/b/", "a/b/c", "a/b/d"]


@pytest.mark.parametrize("new", [member("x"), link("x", "y")], ids=["file", "link"])
def test_what_is_no_folder_takes_the_place_of_a_folder(new: Member) -> None:
    tree = layered([member("x/inner"), member("y")], [new])
    assert names(tree)[-1] == "y" and len(names(tree)) == 2


def test_last_of_several_entries_of_a_name_counts() -> None:
    assert names(layered([member("x", size=1), link("x", "a"), link("x", "b")])) == ["x->b"]
    assert names(layered([member("x/y"), member("x"), folder("x")])) == ["x/"]


# --- whiteouts


def test_whiteout_hides_what_earlier_layers_have() -> None:
    below = [member("a/one"), member("a/two"), member("dir/x/y"), member("z")]
    tree = layered(below, [member("a/.wh.one"), member(".wh.dir"), member("gone/.wh.x")])
    assert names(tree) == ["a/", "a/two", "z"]


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_hides_nothing_of_its_own_layer(order: int) -> None:
    upper = [member("a", size=3), member(".wh.a"), member("d/new"), member(".wh.d")][::order]
    tree = layered([member("a", size=1), member("d/old")], upper)
    assert names(tree) == ["a", "d/", "d/new"]
    found = tree.find(b"a")
    assert found is not None and found.size == 3


@pytest.mark.parametrize("order", [1, -1])
def test_opaque_folder_has_only_what_its_layer_has(order: int) -> None:
    upper = [folder("a"), member("a/.wh..wh..opq"), member("a/new"), member("a/b/new")][::order]
    tree = layered([member("a/old"), member("a/b/old"), member("a/c/old"), member("b")], upper)
    assert names(tree) == ["a/", "a/b/", "a/b/new", "a/new", "b"]


def test_opaque_folder_hides_a_file_whose_new_name_stays() -> None:
    tree = layered([member("a/old")], [hard("new", "a/old"), member("a/.wh..wh..opq")])
    assert names(tree) == ["a/", "new"]


def test_opaque_root_is_empty_but_for_its_layer() -> None:
    assert names(layered([member("a")], [member(".wh..wh..opq"), member("b")])) == ["b"]


class Counted(dict[bytes, Node]):
    """Names that know how often somebody has looked at all of them."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        return super().items()


def test_names_are_looked_at_once_a_layer_however_often_they_are_hidden() -> None:
    hiding = [member("a/.wh..wh..opq"), member(".wh.a"), member(".wh..wh..opq")] * 5
    tree = layered([member("a/old")], [member("a/new")])
    found = tree.find(b"a")
    assert found is not None
    found.children = children = Counted(found.children or {})
    for _ in range(2):
        tree.begin_layer()
        for each in (member("a/new"), *hiding, member("a/newer"), *hiding):
            tree.add(each)

    assert children.looks == 2
    assert names(tree) == ["a/", "a/new", "a/newer"]


def test_words_of_aufs_are_passed_over() -> None:
    aufs = [folder(".wh..wh.plnk"), member(".wh..wh.plnk/1.2"), member(".wh..wh.aufs")]
    assert names(layered([*aufs, member("a")])) == ["a"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..."])
def test_whiteout_of_no_name_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match="whiteout of no file"):
        layered([member("a/b")], [member(name)])


def test_whiteout_behind_a_link_hides_nothing() -> None:
    tree = layered([member("etc/passwd"), link("l", "etc")], [member("l/.wh.passwd")])
    assert names(tree) == ["etc/", "etc/passwd", "l->etc"]


# --- links


def test_links_lead_wherever_they_say() -> None:
    targets = ["/etc/passwd", "../../..", "a//b", "."]
    tree = layered([link(f"l{number}", target) for number, target in enumerate(targets)])
    assert names(tree) == [f"l{number}->{target}" for number, target in enumerate(targets)]


def test_hard_links_share_one_file_also_of_an_earlier_layer() -> None:
    lower = [member("a/one", size=9), link("l", "x")]
    tree = layered(lower, [hard("two", "/a/one"), hard("k", "l")])
    assert tree.find(b"two") is tree.find(b"a/one")
    assert names(tree) == ["a/", "a/one", "k->x", "l->x", "two"]
    links = {node.size: node.links for node, _ in tree.finished() if node.children is None}
    assert links == {9: 2, 0: 2}


def test_hard_link_keeps_its_file_when_the_other_name_goes() -> None:
    tree = layered([member("a", size=9), hard("b", "a")], [member("a", size=1), member(".wh.c")])
    assert [tree.find(name).size for name in (b"a", b"b")] == [1, 9]  # type: ignore[union-attr]


def test_hard_link_to_itself_changes_nothing() -> None:
    tree = layered([member("a", size=9), hard("a", "a")])
    assert tree.find(b"a").size == 9  # type: ignore[union-attr]


@pytest.mark.parametrize("target", ["missing", "dir", "", "l/x", "a/below"])
def test_hard_link_to_what_is_no_file_is_refused(target: str) -> None:
    with pytest.raises(ImageError, match="which is no file in it"):
        layered([member("a"), member("dir/x"), link("l", "dir"), hard("new", target)])


@pytest.mark.parametrize("target", ["../x", "/../etc/passwd", "a/../../x"])
def test_hard_link_out_of_the_root_is_refused(target: str) -> None:
    with pytest.raises(ImageError, match="leads out"):
        layered([member("a"), hard("new", target)])


def test_nothing_is_written_through_a_link_of_its_own_layer() -> None:
    with pytest.raises(ImageError, match="'l/cron' behind 'l', which is no folder"):
        layered([folder("etc"), link("l", "etc"), member("l/cron")])
    with pytest.raises(ImageError, match="which is no folder"):
        layered([member("file"), member("file/below")])


def test_link_of_an_earlier_layer_gives_way_to_a_folder() -> None:
    tree = layered([member("etc/a"), link("l", "etc")], [member("l/cron")])
    assert names(tree) == ["etc/", "etc/a", "l/", "l/cron"]


@pytest.mark.parametrize("target", ["", "x" * 4096])
def test_link_that_no_file_system_has_is_refused(target: str) -> None:
    with pytest.raises(ImageError, match="leads nowhere"):
        layered([link("l", target)])


# --- paths


def test_paths_are_below_the_root_however_they_begin() -> None:
    assert split(b"/a//./b/") == split(b"./a/b") == [b"a", b"b"]
    assert split(b"/") == split(b"") == []


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../x", "/..", "a/..", "a\0b", "n" * 256, "d/" * 201, "ab/" * 1366],
    ids=lambda path: path[:6],
)
def test_path_that_leads_out_or_cannot_be_is_refused(path: str) -> None:
    with pytest.raises(ImageError):
        layered([member(path)])


def test_path_in_a_message_is_one_line_of_printable_characters() -> None:
    with pytest.raises(ImageError) as found:
        layered([member("../\x1b[31m\n" + "x" * 1000)])
    text = str(found.value)
    assert text.isprintable() and len(text) < 300


# --- what is kept


def test_attributes_that_an_image_knows_are_kept() -> None:
    given = {
        b"user.a": b"1", b"trusted.b": b"2", b"security.capability": b"3",
        b"system.posix_acl_access": b"4", b"security.selinux": b"5", b"user.overlay.x": b"",
        b"trusted.overlay.opaque": b"y", b"system.posix_acl_accessory": b"", b"user.": b"",
    }  # fmt: skip
    found = layered([member("a", xattrs=given)]).find(b"a")
    assert found is not None and sorted(found.xattrs.values()) == [b"1", b"2", b"3", b"4"]


def test_set_user_bits_and_devices_are_kept() -> None:
    found = layered([member("a", mode=0o6755, uid=5, gid=6, device=(3, 4))]).find(b"a")
    assert found is not None
    assert (found.mode, found.uid, found.gid, found.device) == (S_IFREG | 0o6755, 5, 6, (3, 4))


def test_number_of_files_has_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_NODES", 20)
    with pytest.raises(ImageError, match="more than 20 files"):
        layered([member(f"{number}") for number in range(21)])
    with pytest.raises(ImageError, match="more than 20 files"):
        layered([member("a/" * 20 + "b")])


def test_names_and_attributes_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_HELD", 1000)
    with pytest.raises(ImageError, match="more than 1000 bytes"):
        layered([member(f"{number}", xattrs={b"user.a": bytes(90)}) for number in range(20)])


def test_each_file_comes_once_with_a_folder_it_is_in_from_the_root_on() -> None:
    tree = layered([member("a/b/c"), hard("d", "a/b/c"), folder("e")])
    order = [(node.links, folder is tree.root) for node, folder in tree.finished()]
    assert len(order) == 5
    assert order[0] == (4, True)
    assert tree.find(b"a").links == 3  # type: ignore[union-attr]
