from __future__ import annotations

import pytest

from runsc.oci import mounts
from sentry.abi import mount as abi


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ([], 0),
        (["ro", "nosuid", "nodev"], abi.MS_RDONLY | abi.MS_NOSUID | abi.MS_NODEV),
        (["ro", "rw"], 0),
        (["rw", "ro"], abi.MS_RDONLY),
        (["noexec", "exec", "noatime"], abi.MS_NOATIME),
        (["strictatime", "nosymfollow"], abi.MS_STRICTATIME | abi.MS_NOSYMFOLLOW),
        (["rbind", "rnosuid", "rnoexec", "rnodev"], abi.MS_NOSUID | abi.MS_NOEXEC | abi.MS_NODEV),
        (["rnoatime", "rnosymfollow"], abi.MS_NOATIME | abi.MS_NOSYMFOLLOW),
        (["rexec", "rrw", "noexec", "nosuid", "ro"], abi.MS_NOSUID),
    ],
)
def test_parse_flags_later_ones_win(options: list[str], flags: int) -> None:
    assert mounts.parse(options).flags == flags


def test_parse_sorts_bind_propagation_and_data() -> None:
    made = mounts.parse(["rbind", "rslave", "size=64k", "mode=755", "ro"])

    assert made == mounts.Options(
        flags=abi.MS_RDONLY,
        propagation=abi.MS_SLAVE | abi.MS_REC,
        bind=abi.MS_BIND | abi.MS_REC,
        data="size=64k,mode=755",
    )


def test_parse_of_recursive_options_leaves_no_data() -> None:
    assert mounts.parse(["rbind", "rnosuid", "rrelatime", "rdev", "mode=755"]).data == "mode=755"


@pytest.mark.parametrize(
    ("options", "below"),
    [(["ro"], False), (["rro"], True), (["rro", "rw"], True), (["rro", "rrw"], False)],
)
def test_parse_of_rro_is_for_what_is_below(options: list[str], below: bool) -> None:
    made = mounts.parse(["rbind", *options])

    assert made.read_only_below is below
    assert bool(made.flags & abi.MS_RDONLY) is (options[-1] != "rrw")


def test_parse_of_idmap_tells_how_far() -> None:
    assert mounts.parse(["bind", "idmap"]).idmapped == "idmap"
    assert mounts.parse(["bind", "ridmap"]).idmapped == "ridmap"
    assert mounts.parse(["bind"]).idmapped == ""
