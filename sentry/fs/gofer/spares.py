"""`Spares`: new files without a name, which the Gofer has made in advance (`Tsparex`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from gofer.p9.attributes import Attributes
from gofer.p9.constants import MAX_SPARES
from gofer.p9.extensions import Rsparex, Tsparex
from sentry.abi.layout import Record
from sentry.errors import EDQUOT, EIO, ENFILE, ENOMEM, ENOSPC, Errno
from sentry.fs.gofer.requests import close_quietly
from sentry.fs.gofer.session import expect
from sentry.platform.host_io import RECEIVED_FDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.gofer.handles import HandleCache
    from sentry.fs.gofer.requests import Pending
    from sentry.fs.gofer.session import Session

TOGETHER: Final = min(MAX_SPARES, RECEIVED_FDS)
"""Of one message."""
SCARCE: Final = (EDQUOT, ENFILE, ENOMEM, ENOSPC)
"""Of which there may be more later."""
PAUSE: Final = 256
SPARES: Final = 64
"""They are asked for when half of them are used: that many programs make while the Gofer does."""


class Spare(Record):
    """A regular file without a name."""

    fid: int
    fd: int
    """To read and write."""
    block: bytes
    """Its attributes."""


class Spares:
    """Those of one journal, below the attachment whose root `fid` is."""

    __slots__ = (
        "_accepted", "_coming", "_dev", "_fid", "_handles", "_owner", "_pause", "_scarce",
        "_session", "_spares", "_told", "_under_way", "asked", "enough", "together",
    )  # fmt: skip

    def __init__(
        self, session: Session, root: tuple[int, int], handles: HandleCache,
        accepted: Callable[[int, int], None], told: Callable[[int], None],
    ) -> None:  # fmt: skip
        """`root`: its fid and its device. `accepted` hears whose the new files are, `told` how
        much room there is."""
        self._session = session
        self._fid = root[0]
        self._dev = root[1].to_bytes(8, "little")
        self._owner = b""
        """Of the last one that came."""
        self._handles = handles
        self._accepted = accepted
        self._told = told
        self._spares: list[Spare] = []
        self.asked = 0
        """Messages under way, """
        self._under_way: list[Pending] = []
        self._coming = 0
        """and files that may come of them."""
        self._scarce = False
        self._pause = 0
        """So many creations more do without: the host had not as many as were asked for."""
        self.enough = False
        """It has none at all, or nobody wants more."""
        self.together = 2 * SPARES
        """So many files the Gofer may hold that have no name yet."""

    def take(self) -> Spare | None:
        """One that is there. Raises: NotNow, if some are under way: a creation by message would
        come after these, and after all that is recorded."""
        if not self._spares and self._under_way:
            self._session.wait_beside(self._under_way[0])
        if self._pause:
            self._pause -= 1
        elif len(self._spares) + self._coming <= SPARES // 2:
            self.ask(SPARES)
        if not self._spares:
            return None
        self._handles.hold(-1)
        return self._spares.pop()

    def give_back(self, spare: Spare) -> None:
        """It was not used."""
        self._handles.hold(1)
        self._spares.append(spare)

    @property
    def wanted(self) -> bool:
        """One that comes back is of use."""
        return not (self._scarce or self.enough) and len(self._spares) < 2 * SPARES

    def scarce(self, is_so: bool) -> None:
        """Whether there is little room: then none are kept."""
        self._scarce = is_so
        if is_so:
            self._let_go()

    def ask(self, count: int) -> None:
        """For so many, with those that are there, if any are wanted."""
        session, fids = self._session, list[int]()
        if self.enough or self._scarce or self._pause:
            return
        while len(self._spares) + self._coming < count and self._handles.room():
            fids.append(session.new_fid())
            self._coming += 1
            self._handles.hold(1)
        lots = [fids[at : at + TOGETHER] for at in range(0, len(fids), TOGETHER)]
        self.asked += len(lots)
        try:
            found = session.send_together(Tsparex(self._fid, lot) for lot in lots)
        except EIO:
            self.asked -= len(lots)
            self._coming -= len(fids)
            self._handles.hold(-len(fids))
            return
        self._under_way += found
        for asked, lot in zip(found, lots, strict=True):
            came = partial(self._came, asked, lot)
            if asked.done:
                came()
            else:
                asked.heard = came

    def _came(self, asked: Pending, fids: list[int]) -> None:
        self.asked -= 1
        self._under_way.remove(asked)
        fds = asked.take_fds()
        try:
            reply = expect(asked.result(), Rsparex)
        except Errno as problem:  # the Gofer may have made them, and the descriptors did not come
            reply = Rsparex([], 0, 0)
            self.enough = self.enough or not isinstance(problem, SCARCE)
        if len(reply.blocks) < len(fids):
            self._pause = PAUSE
        self._coming -= len(fids)
        for fd in fds[len(fids) :]:
            close_quietly(fd)
        for at, fid in enumerate(fids):
            if at < len(reply.blocks):
                self._one(tuple.__new__(Spare, (fid, fds[at], reply.blocks[at])))
            else:
                self._handles.hold(-1)
                self._session.clunk(fid)
        if reply.blocks and not self.enough:
            self.together = reply.together
            self._told(reply.room)  # perhaps it goes again

    def _one(self, spare: Spare) -> None:
        if spare.block[16:24] != self._dev:  # an overlayfs over several file systems
            self.enough = True
        if spare.fd < 0 or self.enough:
            close_quietly(spare.fd)
            self._handles.hold(-1)
            self._session.clunk(spare.fid)
            return
        self._spares.append(spare)
        owner = spare.block[4:12]
        if owner != self._owner:
            self._owner = owner
            made = Attributes.unpack(spare.block)
            self._accepted(made.uid, made.gid)

    def close(self) -> None:
        """Give them back, and ask for no more."""
        self.enough = True
        self._let_go()

    def _let_go(self) -> None:
        spares, self._spares = self._spares, []
        for fid, fd, _ in spares:
            close_quietly(fd)
            self._handles.hold(-1)
            self._session.clunk(fid)
