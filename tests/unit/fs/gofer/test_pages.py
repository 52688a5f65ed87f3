"""What is mapped over 9P, whose file may be closed before the server has answered."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gofer.p9.constants import IO_HEADER_SIZE
from gofer.p9.messages import Rread, Rwrite, Tread
from sentry.fs.gofer.pages import FidPages
from sentry.fs.gofer.regular import GoferRegular
from sentry.mm.ramfile import RamFile
from sentry.platform.memory import Ram
from sentry.vfs.vfs import Vfs
from tests.unit.fs.resting import done

PAGE = 4096
FID = 7


class File:
    """One that is open once, and closed while the server answers a byte at a time."""

    written_back = GoferRegular._written_back

    def __init__(self) -> None:
        self.attributes = SimpleNamespace(size=PAGE, mtime_ns=0)
        self.sb: Any = SimpleNamespace(session=self, handles=self)
        self.msize = PAGE + IO_HEADER_SIZE
        self.read_handle: Any = None
        self.write_handle: Any = SimpleNamespace(fid=FID, users=1)
        self.asked: list[Any] = []

    def use(self, handle: Any) -> None:
        handle.users += 1

    def release(self, handle: Any) -> None:
        handle.users -= 1
        if not handle.users:
            handle.fid = -1

    def changed(self) -> None: ...

    def reply(self, _key: object, request: Any, **_: object) -> Rread | Rwrite:
        if not self.asked:
            self.release(self.write_handle)
        self.asked.append(request)
        some = PAGE // 2 if len(self.asked) == 1 else PAGE
        if isinstance(request, Tread):
            return Rread(bytes(min(some, request.count)))
        return Rwrite(min(some, len(request.data)))


@pytest.fixture
def memory() -> Iterator[Ram]:
    ram = Ram.from_memfd(1 << 30)
    yield ram
    ram.close()


@pytest.mark.parametrize("stores", [False, True])
def test_who_closes_the_file_takes_no_fid_away_from_who_waits(memory: Ram, stores: bool) -> None:
    file: Any = File()
    pages = FidPages(file, RamFile(memory), Vfs())
    handle = file.write_handle
    if stores:
        pages.track()
        file.asked.append(None)
        done(pages.ram.loader(0, 1))
        file.asked.clear()
        pages.ram.write(0, b"stored")
        done(file.written_back(pages, handle, 0, PAGE))
    else:
        done(pages.ram.loader(0, 1))
    assert [(each.fid, each.offset) for each in file.asked] == [(FID, 0), (FID, PAGE // 2)]
    assert (handle.fid, handle.users) == (-1, 0)
    pages.close()


def test_one_at_a_time_sends_behind_those_that_close_the_file(memory: Ram) -> None:
    file: Any = File()
    file.asked.append(None)
    pages = FidPages(file, RamFile(memory), Vfs())
    assert not pages.closed(), "nothing was stored"
    pages.track()
    done(pages.ram.loader(0, 1))
    pages.ram.write(0, b"stored")
    file.asked = [None]
    reply = file.reply

    def meanwhile(key: object, request: Any, **options: object) -> Any:
        if len(file.asked) == 1:
            pages.ram.write(0, b"more")
            assert not pages.closed() and not pages.closed()
        return reply(key, request, **options)

    file.reply = meanwhile
    assert pages.closed()
    done(pages.sent_behind(file.write_handle))
    assert [bytes(each.data[:6]) for each in file.asked[1:]] == [b"stored", b"moreed"]
    assert pages.closed()
    pages.close()
