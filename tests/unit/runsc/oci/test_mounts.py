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


def test_parse_of_idmap_tells_how_far() -> None:
    assert mounts.parse(["bind", "idmap"]).idmapped == "idmap"
    assert mounts.parse(["bind", "ridmap"]).idmapped == "ridmap"
    assert mounts.parse(["bind"]).idmapped == ""
