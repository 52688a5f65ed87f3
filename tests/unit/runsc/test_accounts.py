"""Users of a root file system, by its own files."""

from __future__ import annotations

import pytest

from runsc.accounts import Ids, ids_of
from runsc.errors import RuntimeFailure

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
web:x:101:102::/srv:/bin/false
:x:7:7::/:
words:x:seven:7::/:
1000:x:55:56::/:
huge:x:99999999999999999999:1::/:
short
"""
GROUP = b"""root:x:0:
www:x:33:web,other
web:x:102:web
wheel:x:10:root,web
broken:x
numbers:x:x:web
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Ids(0, 0, (10,))),
        ("root", Ids(0, 0, (10,))),
        ("web", Ids(101, 102, (33, 10))),
        ("101", Ids(101, 102, (33, 10))),
        ("web:", Ids(101, 102, (33, 10))),
        ("web:www", Ids(101, 33)),
        ("web:33", Ids(101, 33)),
        ("web:4444", Ids(101, 4444)),
        ("4321", Ids(4321, 0)),
        ("4321:5", Ids(4321, 5)),
        (":www", Ids(0, 33)),
        ("1000", Ids(55, 56)),
    ],
)
def test_user_is_who_the_files_say(user: str, expected: Ids) -> None:
    assert ids_of(user, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    "user",
    ["nobody", "web:nobody", "huge", "words", "-1", "4294967295", "99999999999", "٣", "a:b:c"],
)
def test_user_that_is_not_there_is_refused(user: str) -> None:
    with pytest.raises(RuntimeFailure, match=r"has no (user|group)"):
        ids_of(user, PASSWD, GROUP)


def test_root_without_files_has_root_and_numbers() -> None:
    assert ids_of("", b"", b"") == Ids(0, 0)
    assert ids_of("5:6", b"", b"") == Ids(5, 6)
