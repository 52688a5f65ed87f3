"""Ids and capabilities: credentials(7), capabilities(7)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sentry.abi.capability import CAP_CHOWN, CAP_NET_RAW, CAP_SETUID
from sentry.abi.prctl import SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP, SECBIT_NOROOT
from sentry.auth.credentials import ALL_CAPS, UNCHANGED, Credentials
from sentry.auth.execve import FileCaps, after_exec, parse_file_caps
from sentry.auth.permissions import (
    MAY_EXEC,
    MAY_READ,
    MAY_WRITE,
    check_sticky,
    may_access,
)
from sentry.errors import EPERM

ROOT = Credentials.root()
USER = Credentials.user(1000, 1000, (50,))


def test_setuid_of_root_drops_everything() -> None:
    now = ROOT.set_uid(1000)
    assert (now.uid, now.euid, now.suid, now.fsuid) == (1000,) * 4
    assert (now.permitted, now.effective) == (0, 0)
    with pytest.raises(EPERM):
        now.set_uid(0)


def test_seteuid_and_back_keeps_permitted() -> None:
    away = ROOT.set_resuid(UNCHANGED, 1000, UNCHANGED)
    assert (away.effective, away.permitted) == (0, ALL_CAPS)
    assert away.set_resuid(UNCHANGED, 0, UNCHANGED).effective == ALL_CAPS


def test_keep_caps_and_no_fixup() -> None:
    kept = replace(ROOT, securebits=SECBIT_KEEP_CAPS).set_uid(5)
    assert (kept.permitted, kept.effective) == (ALL_CAPS, 0)
    assert replace(ROOT, securebits=SECBIT_NO_SETUID_FIXUP).set_uid(5).effective == ALL_CAPS


def test_fsuid_takes_file_capabilities_only() -> None:
    now = ROOT.set_fsuid(1000)
    assert not now.has(CAP_CHOWN)
    assert now.has(CAP_SETUID)
    assert now.set_fsuid(0).has(CAP_CHOWN)


def test_capset_never_grows() -> None:
    less = ROOT.capset(1 << CAP_CHOWN, 1 << CAP_CHOWN, 0)
    with pytest.raises(EPERM):
        less.capset(1 << CAP_CHOWN, ALL_CAPS, 0)
    with pytest.raises(EPERM):
        less.capset(1 << CAP_NET_RAW, 1 << CAP_CHOWN, 0)


def test_set_uid_root_program_gives_all_but_what_is_out_of_bounds() -> None:
    user = replace(USER, bounding=ALL_CAPS & ~(1 << CAP_NET_RAW))
    new, secure = after_exec(user, 0o104755, (0, 0), None)
    assert (new.uid, new.euid, secure) == (1000, 0, True)
    assert new.permitted == new.effective == user.bounding
    same, secure = after_exec(user, 0o104755, (0, 0), None, no_new_privs=True)
    assert (same.euid, same.permitted, secure) == (1000, 0, False)


def test_nothing_is_gained_while_others_have_a_hold_on_the_program() -> None:
    same, secure = after_exec(USER, 0o104755, (0, 0), None, unsafe=lambda: True)
    assert (same.euid, same.permitted, secure) == (1000, 0, True)
    setter = replace(USER, permitted=1 << CAP_SETUID, effective=1 << CAP_SETUID)
    new, _ = after_exec(setter, 0o104755, (0, 0), None, unsafe=lambda: True)
    assert (new.euid, new.permitted) == (0, 1 << CAP_SETUID)


def test_root_gets_nothing_back_with_no_new_privs() -> None:
    left = replace(ROOT, permitted=1 << CAP_CHOWN, effective=1 << CAP_CHOWN)
    assert after_exec(left, 0o100755, (0, 0), None)[0].permitted == ALL_CAPS
    new, _ = after_exec(left, 0o100755, (0, 0), None, no_new_privs=True)
    assert (new.permitted, new.effective) == (1 << CAP_CHOWN, 1 << CAP_CHOWN)


def test_file_capabilities() -> None:
    raw = bytes.fromhex("01000002 00200000 00000000 00000000 00000000".replace(" ", ""))
    caps = parse_file_caps(raw)
    assert caps == FileCaps(1 << CAP_NET_RAW, 0, True)
    new, secure = after_exec(USER, 0o100755, (0, 0), caps)
    assert (new.effective, new.permitted, secure) == (1 << CAP_NET_RAW, 1 << CAP_NET_RAW, True)
    with pytest.raises(EPERM):
        after_exec(replace(USER, bounding=0), 0o100755, (0, 0), caps)


def test_ambient_capabilities_survive_a_plain_program() -> None:
    bit = 1 << CAP_NET_RAW
    user = replace(USER, permitted=bit, inheritable=bit).raise_ambient(CAP_NET_RAW)
    new, secure = after_exec(user, 0o100755, (0, 0), None)
    assert (new.effective, new.permitted, new.ambient, secure) == (bit, bit, bit, False)


def test_root_without_noroot_keeps_all_and_with_it_loses_all() -> None:
    new, secure = after_exec(ROOT, 0o100755, (0, 0), None)
    assert (new.effective, secure) == (ALL_CAPS, False)
    strict = replace(ROOT, securebits=SECBIT_NOROOT)
    assert after_exec(strict, 0o100755, (0, 0), None)[0].effective == 0


def test_the_first_matching_class_decides() -> None:
    assert not may_access(USER, 0o100077, 1000, 0, MAY_READ)
    assert not may_access(USER, 0o100707, 0, 50, MAY_READ)
    assert may_access(USER, 0o100040, 0, 50, MAY_READ)
    assert may_access(ROOT, 0o100000, 5, 5, MAY_READ | MAY_WRITE)
    assert not may_access(ROOT, 0o100644, 5, 5, MAY_EXEC)
    assert may_access(ROOT, 0o040000, 5, 5, MAY_EXEC)


def test_sticky_directory() -> None:
    with pytest.raises(EPERM):
        check_sticky(USER, 0o041777, 0, 5)
    check_sticky(USER, 0o041777, 0, 1000)
    check_sticky(ROOT, 0o041777, 5, 6)
