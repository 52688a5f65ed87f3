"""`Hearing`: what others change in an exclusive tree, told by the Gofer while programs run.

It waits on a session of its own (a duplicate: `Tdupx`), so that the request that stays without an
answer is none that a journal, or anybody else, has to wait for. What is told is dropped from what
is known, and the next who looks asks. An answer that was under way meanwhile may be older than what
was told: `epoch` counts, and what came in another one is not kept.

What is told is that of the Sentry's writes through donated descriptors, too: they cost a question.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gofer.p9.constants import HEARD_NAME
from gofer.p9.extensions import Rhearx, Tdupx, Thearx
from sentry.errors import EIO, Errno
from sentry.fs.gofer.session import Asked, Session, expect
from sentry.suppress import suppress
from sentry.wait.again import again, kept

if TYPE_CHECKING:
    from sentry.fs.gofer.requests import Pending

_ENTRY: Final = struct.Struct("<QQBH")
Told = Callable[[tuple[int, int], bytes, bool], bool]
"""A directory by device and number, a name in it, and whether that means something else now; False:
it may be one of too many."""


class Hearing:
    """Of one tree, whose root is `fid`."""

    __slots__ = ("_fid", "_lost", "_session", "_told", "epoch")

    def __init__(
        self, session: Session, fid: int, told: Told, lost: Callable[[], object]
    ) -> None:
        """`session`: of `listen`; `lost` is called where nobody knows what has changed."""
        self._session = session
        self._fid = fid
        self._told = told
        self._lost = lost
        self.epoch = 0
        self._ask()

    def close(self) -> None:
        """Nobody listens any more."""
        self._session.close()

    def _ask(self) -> None:
        with suppress(EIO):
            asked = self._session.send(Thearx(self._fid))
            self._session.tell(asked, lambda: self._came(asked))

    def _came(self, asked: Pending) -> None:
        try:
            reply = expect(asked.result(), Rhearx)
        except Errno:
            return
        self.epoch += 1
        if reply.lost or not self._take(reply.heard):
            self._lost()
        self._ask()

    def _take(self, heard: bytes) -> bool:
        """False: anything may have changed, or that is nothing that a Gofer tells."""
        at = 0
        while at + _ENTRY.size <= len(heard):
            dev, ino, what, length = _ENTRY.unpack_from(heard, at)
            at += _ENTRY.size
            if not self._told((dev, ino), heard[at : at + length], what == HEARD_NAME):
                return False
            at += length
        return at == len(heard)


def listen_now(session: Session, fid: int) -> Session | None:
    """A session that hears of the tree of `fid` from now on, waited for in place; None where the
    host does not tell."""
    try:
        made = session.copy_on(session.duplicate())
    except Errno:
        return None
    try:
        made.call_now(Thearx(fid))
    except Errno:
        made.close()
        return None
    return made


async def listen(session: Session, fid: int) -> Session | None:
    """The same beside programs."""
    try:
        made = session.copy_on(await again(_duplicate, session))
    except Errno:
        return None
    try:
        await again(made.reply, "hear", Thearx(fid), slow=True)
    except Errno:
        made.close()
        return None
    return made


def _duplicate(session: Session) -> int:
    asked: Asked = kept(_duplicate) or Asked(session.send(Tdupx()))
    session.complete(asked, _duplicate, slow=True)
    asked.pending.result()
    return asked.pending.take_fd()
