"""What may be said to mount(2), and what of it is shown."""

from __future__ import annotations

import pytest

from sentry.errors import EINVAL
from sentry.fs.layers.options import as_option, check_option, parse

UPPER = ",upperdir=/up,workdir=/work"


def test_paths_may_hold_what_lies_between_them() -> None:
    found = parse(r"lowerdir=/a\:b:/c\,d:/e\\f,upperdir=/up\,per,workdir=/wo\:rk")
    assert found.lowers == ["/a:b", "/c,d", r"/e\f"]
    assert (found.upper, found.work) == ("/up,per", "/wo:rk")


def test_layers_may_come_one_by_one() -> None:
    assert parse("lowerdir+=/a,lowerdir+=/b:c").lowers == ["/a", "/b:c"]


@pytest.mark.parametrize(
    ("given", "redirect"),
    [
        ("", "follow"),
        (",redirect_dir=off", "follow"),
        (",redirect_dir=nofollow", "nofollow"),
        (",redirect_dir=on", "on"),
        (",userxattr", "nofollow"),
        (",userxattr,redirect_dir=nofollow", "nofollow"),
    ],
)
def test_redirects(given: str, redirect: str) -> None:
    assert parse("lowerdir=/a" + UPPER + given).redirect == redirect


@pytest.mark.parametrize(
    "data",
    [
        "", "upperdir=/up,workdir=/work", "lowerdir=/a", "lowerdir=/a,upperdir=/up",
        "lowerdir=/a:::/b" + UPPER, "lowerdir=/a::/b:/c" + UPPER, "lowerdir=/a::" + UPPER,
        "lowerdir=:/a" + UPPER, "datadir+=/a" + UPPER, "lowerdir+=/a,datadir+=/b,lowerdir+=/c",
        "lowerdir=/a,lowerdir+=/b" + UPPER, "lowerdir=" + UPPER, "lowerdir=/a:" + UPPER,
        "lowerdir=/a,index=on" + UPPER, "lowerdir=/a,metacopy=on" + UPPER,
        "lowerdir=/a,nfs_export=on" + UPPER, "lowerdir=/a,verity=on" + UPPER,
        "lowerdir=/a,redirect_dir" + UPPER, "lowerdir=/a,userxattr=1" + UPPER,
        "lowerdir=/a,userxattr,redirect_dir=on" + UPPER, "lowerdir=/a,other" + UPPER,
        "lowerdir=" + ":".join("/a" for _ in range(501)),
    ],
)  # fmt: skip
def test_refused(data: str) -> None:
    with pytest.raises(EINVAL):
        parse(data)


@pytest.mark.parametrize("option", ["index=off", "metacopy=off", "volatile", "xino=auto"])
def test_what_changes_nothing_is_taken(option: str) -> None:
    check_option(option)
    assert parse(f"lowerdir=/a:/b,{option}").lowers == ["/a", "/b"]


def test_layers_for_data_alone_are_the_last_ones() -> None:
    for data in ("lowerdir=/a:/b::/c::/d", "lowerdir+=/a,lowerdir+=/b,datadir+=/c,datadir+=/d"):
        found = parse(data + UPPER)
        assert (found.lowers, found.data_only) == (["/a", "/b", "/c", "/d"], 2)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("volatile,lowerdir=/a b:/c,xino=on,redirect_dir=on" + UPPER,
         r",lowerdir=/a\040b:/c,upperdir=/up,workdir=/work,redirect_dir=on,xino=on,fsync=volatile"),
        ("lowerdir=/a:/b,redirect_dir=follow,index=off", ",lowerdir=/a:/b,redirect_dir=on"),
        ("lowerdir=/a:/b,redirect_dir=nofollow", ",lowerdir=/a:/b,redirect_dir=nofollow"),
        ("lowerdir=/a,userxattr,uuid=null" + UPPER,
         ",lowerdir=/a,upperdir=/up,workdir=/work,redirect_dir=nofollow,uuid=null,userxattr"),
        (r"lowerdir=/c\:o,upperdir=/co\,ma,workdir=/w",
         r",lowerdir=/c\134:o,upperdir=/co\134\054ma,workdir=/w"),
        ("lowerdir+=/a,datadir+=/b,upperdir=/u,workdir=/w",
         ",lowerdir+=/a,datadir+=/b,upperdir=/u,workdir=/w"),
    ],
)  # fmt: skip
def test_shown_are_paths_and_what_is_not_usual(data: str, shown: str) -> None:
    assert parse(data).shown(same_fs=False) == shown


def test_layers_of_one_file_system_need_no_xino() -> None:
    assert "xino" not in parse("lowerdir=/a:/b,xino=on").shown(same_fs=True)


@pytest.mark.parametrize(
    ("key", "value", "option"),
    [
        (b"volatile", None, b"volatile"),
        (b"upperdir", b"/a,b", rb"upperdir=/a\,b"),
        (b"upperdir", rb"/a\,b", rb"upperdir=/a\,b"),
        (b"lowerdir+", rb"/a\,b:c", rb"lowerdir+=/a\\\,b:c"),
    ],
)
def test_values_of_fsconfig_may_have_commas(
    key: bytes, value: bytes | None, option: bytes
) -> None:
    assert as_option(key, value) == option


def test_a_line_of_mounts_stays_one_line() -> None:
    data = b"lowerdir=/a\n/b\\:\xff:/c".decode("utf-8", "surrogateescape")
    shown = parse(data).shown(same_fs=True)
    assert "\n" not in shown
    assert shown.encode() == ",lowerdir=/a\\012/b\\134:\ufffd:/c,redirect_dir=on".encode()
