"""What the Gofer may do is enough for what it does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gofer import confine
from gofer._native import lib
from gofer.attachment import Attachment, CacheMode
from gofer.p9 import constants as c
from gofer.p9.codec import Message
from gofer.p9.extensions import (
    Tcreatex,
    Tdrainx,
    Tdupx,
    Tgetxattrx,
    Thearx,
    Tinheritx,
    Tjournalx,
    Tlinkx,
    Tmakex,
    Tnearx,
    Tnotifyx,
    Treaddirx,
    Tremovexattrx,
    Trenamex,
    Tsetattrx,
    Tsetxattrx,
    Tsparex,
    Tsyncx,
    Tunwatchx,
    Twalkx,
    Twatchx,
)
from gofer.p9.messages import (
    Tattach,
    Tclunk,
    Tfsync,
    Tgetattr,
    Tlock,
    Tlopen,
    Tread,
    Treaddir,
    Treadlink,
    Tremove,
    Tstatfs,
    Tunlinkat,
    Twalk,
    Twrite,
)
from runsc import filters
from runsc.launch import isolation, landlock
from tests.unit.gofer.harness import Client, serving


def test_capabilities_to_write_are_kept_only_where_something_may_be_written() -> None:
    reading = confine.capabilities([Attachment(b"0", -1, True)])
    assert set(reading) == {lib.CAP_DAC_OVERRIDE, lib.CAP_DAC_READ_SEARCH}
    both = confine.capabilities([Attachment(b"0", -1, True), Attachment(b"1", -1)])
    assert set(both) == {*range(5), lib.CAP_SETFCAP}


def test_every_rule_has_a_reason() -> None:
    assert all(rule.reason for rule in confine.SYSCALLS)
    assert all(both for both in confine.capabilities([Attachment(b"0", -1)]).values())


@pytest.mark.root
def test_every_request_is_served_under_the_filter_and_with_few_rights(tree: Path) -> None:
    """What is synced lies in memory: syncfs(2) waits for all of a disk."""
    os.chmod(tree, 0o700)
    os.chown(tree, 1234, 1234)

    program = filters.gofer_program()

    def lockdown() -> None:
        keep = confine.capabilities([Attachment(b"0", -1)])
        isolation.drop_rights(isolation.Rights(0, frozenset(keep)))
        landlock.restrict_gofer([landlock.Tree(each, True, True) for each in (fd, memory)])
        filters.install(program, filters.Switches(), -1)

    times = c.SETATTR_MTIME | c.SETATTR_MTIME_SET
    requests: list[Message] = [
        Tnearx(min(os.sched_getaffinity(0))),
        Twalk(0, 1, [b"dir", b"inner"]),
        Tlopen(1, os.O_RDWR),
        Twrite(1, 0, b"x" * 5000),
        Tread(1, 0, 5000),
        Tread(1, 0, 6000),
        Tfsync(1, 0),
        Tfsync(1, 1),
        Tattach(8, c.NOFID, b"", b"memory", 0),
        Tsyncx(8),
        Tlopen(8, os.O_RDONLY),
        Tsyncx(8),
        Tlock(1, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"me"),
        Tgetattr(1, 0),
        Tstatfs(1),
        Twalkx(0, c.NOFID, os.O_RDWR, 1, [b"file"]),
        Tcreatex(0, 2, b"new", os.O_RDWR, 1, 0o4755, 1000, 1000),
        Tmakex(0, b"d", b"", stat.S_IFDIR | 0o2755, 1000, 1000, 0),
        Tmakex(0, b"l", b"target", stat.S_IFLNK | 0o777, 1000, 1000, 0),
        Tmakex(0, b"p", b"", stat.S_IFIFO | 0o600, 1000, 1000, 0),
        Twalk(0, 3, [b"l"]),
        Treadlink(3),
        Twalk(0, 4, []),
        Tlopen(4, os.O_RDONLY),
        Treaddir(4, 0, 4096),
        Treaddirx(4, 0, 4096),
        Tsetattrx(0, b"new", c.SETATTR_SIZE | c.SETATTR_MODE | times, 0o600, 0, 0, 99, 0, 1),
        Tsetxattrx(0, b"new", b"user.a", 0, b"v"),
        Tgetxattrx(0, b"new", b"user.a"),
        Tgetxattrx(0, b"new", b""),
        Tremovexattrx(0, b"new", b"user.a"),
        Tsetxattrx(0, b"new", b"security.capability", 0, bytes((0, 0, 0, 2)) + bytes(16)),
        *(Tcreatex(0, c.NOFID, name, os.O_EXCL, 1, 0o2755, 7, 8) for name in (b"h1", b"h2")),
        *(Tunlinkat(0, name, 0) for name in (b"h1", b"h2")),
        Tlinkx(0, b"new", 0, b"hard"),
        Trenamex(0, b"hard", 0, b"harder", 0),
        Tunlinkat(0, b"new", 0),
        Tgetattr(2, 0),
        Twalkx(2, c.NOFID, os.O_RDWR, 1, []),
        Tunlinkat(0, b"d", c.AT_REMOVEDIR),
        Tremove(3),
        Tclunk(1),
        Tdupx(),
        Tnotifyx(),
        Twatchx(0, b""),
        Tunwatchx(1),
        Tjournalx(),
        Tinheritx(4),
        Tsparex(0, [5]),
        Tlinkx(5, b"", 4, b"spare"),
        Tdrainx(0),
        Tattach(9, c.NOFID, b"", b"root", 0),
        Thearx(9),
        Twalkx(9, 10, c.NOOPEN, 0, [b"dir"]),
    ]
    fd = os.open(tree, os.O_PATH)
    ring = os.memfd_create("ring")
    os.truncate(ring, 4096)
    memory = os.open("/dev/shm", os.O_PATH)
    served = [Attachment(b"0", fd, cache=CacheMode.SHARED), Attachment(b"root", fd)]
    served.append(Attachment(b"memory", memory))
    with serving(served, lockdown, journal=ring) as sock:
        client = Client(sock)
        client.start()
        for request in requests:
            client.call(request)
        assert len(client.fds) == 9
        for donated in client.fds:
            os.close(donated)
    os.close(ring)
    os.close(memory)
    assert os.stat(tree / "harder").st_uid == 1000
    assert os.stat(tree / "spare").st_nlink == 1
