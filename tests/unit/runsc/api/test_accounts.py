"""Users by numbers and names."""

from __future__ import annotations

import pytest

from runsc.accounts import Ids
from runsc.api.accounts import by_name, by_number
from runsc.api.errors import SandboxError

PASSWD = b"root:x:0:0::/:/bin/sh\nalice:x:1000:1001::/:/bin/sh\nbroken\nbad:x:one:2:::\n"
GROUP = b"alice:x:1001:\nwheel:x:10:bob,alice\nbad:x:many:alice\n"


@pytest.mark.parametrize(
    ("user", "found"),
    [
        (0, Ids(0, 0)),
        ("1000", Ids(1000, 1000)),
        ("5:6", Ids(5, 6)),
        ("alice", None),
        ("5:wheel", None),
        ("", None),
    ],
)
def test_numbers_need_no_file(user: str | int, found: Ids | None) -> None:
    assert by_number(user) == found


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("alice", Ids(1000, 1001, (10,))),
        ("alice:wheel", Ids(1000, 10)),
        ("alice:77", Ids(1000, 77)),
        ("1000:wheel", Ids(1000, 10)),
        ("5:wheel", Ids(5, 10)),
        ("root", Ids(0, 0)),
    ],
)
def test_names_are_looked_up(user: str, found: Ids) -> None:
    assert by_name(user, PASSWD, GROUP) == found


@pytest.mark.parametrize("user", ["bob", "bad", "alice:none", "", ":wheel"])
def test_unknown_names_are_errors(user: str) -> None:
    with pytest.raises(SandboxError):
        by_name(user, PASSWD, GROUP)


@pytest.mark.parametrize("user", [-1, 1 << 32, "99999999999", str((1 << 32) - 1)])
def test_what_is_no_id_is_an_error(user: str | int) -> None:
    with pytest.raises(SandboxError):
        if by_number(user) is None:
            by_name(str(user), PASSWD, GROUP)
