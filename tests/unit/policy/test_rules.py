"""Patterns, networks and families of calls."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.policy.rules import FAMILIES, GIVES, On, above, glob, network, number_of
from sentry.syscalls.registry import NUMBERS


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/etc/*", "/etc/passwd", True),
        ("/etc/*", "/etc/ssl/key", False),
        ("/etc/**", "/etc/ssl/key", True),
        ("/etc/**", "/etc", False),
        ("/**/key", "/etc/ssl/key", True),
        ("/etc/pass??", "/etc/passwd", True),
        ("/etc/pass??", "/etc/pass/x", False),
        ("/a.b", "/aXb", False),
        ("/a[b]", "/a[b]", True),
        ("/a/*", "/a/b\nc", True),
        ("**", "memfd:x", True),
        ("/a/**/b*c/**/d", "/a/q/b1c/x/bc/d", True),
        ("/a/**/b*c/**/d", "/a/q/b1c/d", False),
        ("/a**b**c", "/axbxcc", True),
        ("/a*b**/c?", "/aab/b/cc", True),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    assert (glob(pattern).fullmatch(path) is not None) is matches


@pytest.mark.parametrize(
    ("pattern", "path", "is_above"),
    [
        ("/etc/**", "/etc", True),
        ("/etc/ssl/*", "/etc", True),
        ("/home/*/.ssh/key", "/home/me", True),
        ("/home/*/.ssh/key", "/home/me/.ssh", True),
        ("/home/*/.ssh/key", "/home/me/else", False),
        ("/**/key", "/any/where", True),
        ("/srv/**.key", "/srv/a/b", True),
        ("/srv/**x/key", "/srv/a", True),
        ("**.key", "/any", True),
        ("/etc/passwd", "/etc/passwd", False),
        ("/etc/passwd", "/usr", False),
    ],
)
def test_directories_above_what_matches(pattern: str, path: str, is_above: bool) -> None:
    assert (above(pattern).fullmatch(path) is not None) is is_above


def test_networks_of_both_families() -> None:
    base, mask = network("10.0.0.0/8")
    assert number_of("10.9.8.7") & mask == base
    assert number_of("::ffff:10.9.8.7") & mask == base
    assert number_of("11.0.0.0") & mask != base
    base, mask = network("2001:db8::/32")
    assert number_of("2001:db8::1") & mask == base
    assert number_of("10.0.0.1") & mask != base


@pytest.mark.parametrize("text", ["10.0.0.0/33", "x", "::/129", "10.0.0.0/-1", ""])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"no (network|address)"):
        network(text)


def test_a_rule_for_one_call_of_a_family_is_one_for_all() -> None:
    on = On()
    on("openat2", path="/x")(test_patterns)
    on("execveat")(test_patterns)
    on("lstat", path="/x")(test_patterns)
    on("lstat")(test_patterns)
    names = [{NUMBERS[number] for number in rule.numbers} for rule in on.rules]
    assert names[0] == {"open", "openat", "openat2", "creat", "open_by_handle_at", "acct", *GIVES}
    assert names[1] == {"execve", "execveat"}
    assert names[2] == {"stat", "lstat", "newfstatat", "statx", *GIVES}
    assert names[3] == {"lstat"}
    assert [rule.kind for rule in on.rules] == ["open", "exec", "path", "call"]


def test_all_calls_of_families_are_known() -> None:
    known = set(NUMBERS.values())
    assert {name for family in FAMILIES for name in family} - known == {
        "setxattrat", "removexattrat"
    } - known  # fmt: skip


def test_all_but_some() -> None:
    on = On()
    on.other_calls("read", "write")(test_patterns)
    assert on.rules[0].numbers == NUMBERS.keys() - {0, 1}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("/" + "*-" * 20 + "x", False),
        ("/" + "*-" * 20 + "*", True),
        ("/*-*-*/*-*-*/*-*-*/*-*-*/*x", False),
        ("/**/*-*-*-*-*-*x*/**/*-*-*-*-*-*x*/**", False),
        ("**" + "*-" * 20 + "/x", False),
        ("*?-?*-?*??-*-??*-*?-*-*?x", False),
    ],
)
def test_wildcards_in_a_name_cost_no_more_than_its_length(pattern: str, matches: bool) -> None:
    path = ("/" + "-" * 255) * (1 if matches else 12)
    assert (glob(pattern).fullmatch(path) is not None) is matches


def _plain(pattern: str) -> re.Pattern[str]:
    """What it means, without a thought of what it costs."""
    words = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("".join(words.get(part) or re.escape(part) for part in parts), re.DOTALL)


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?"]), max_size=10).map("".join),
    st.text("ab/", max_size=14),
)
def test_patterns_match_what_they_mean(pattern: str, path: str) -> None:
    expected = _plain(pattern).fullmatch(path) is not None
    assert (glob(pattern).fullmatch(path) is not None) is expected
