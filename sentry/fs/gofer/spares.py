"""`Spares`: new files without a name, which the Gofer has made in advance (`Tsparex`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from gofer.p9.attributes import Attributes
from gofer.p9.extensions import Rsparex, Tsparex
from sentry.errors import EIO, Errno
from sentry.fs.gofer.requests import close_quietly
from sentry.fs.gofer.session import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.gofer.handles import HandleCache
    from sentry.fs.gofer.requests import Pending
    from sentry.fs.gofer.session import Session

SPARES: Final = 64
"""They are asked for when half of them are used: that many programs make while the Gofer does."""


class Spare(NamedTuple):
    """A regular file without a name."""

    fid: int
    fd: int
    """To read and write."""
    block: bytes
    """Its attributes."""


class Spares:
    """Those of one journal, below the attachment whose root `fid` is."""

    __slots__ = (
        "_accepted", "_dev", "_fid", "_handles", "_scarce", "_session", "_spares", "_told", "asked",
        "enough",
    )  # fmt: skip

    def __init__(
        self, session: Session, root: tuple[int, int], handles: HandleCache,
        accepted: Callable[[int, int], None], told: Callable[[int], None],
    ) -> None:  # fmt: skip
        """`root`: its fid and its device. `accepted` hears whose the new files are, `told` how
        much room there is."""
        self._session = session
        self._fid, self._dev = root
        self._handles = handles
        self._accepted = accepted
        self._told = told
        self._spares: list[Spare] = []
        self.asked = 0
        """How many are on their way."""
        self._scarce = False
        self.enough = False
        """The host has none, or nobody wants more."""

    def take(self) -> Spare | None:
        """One that is there."""
        if not self._spares and self.asked:
            self._session.drain()
        if len(self._spares) + self.asked <= SPARES // 2 and not (self.enough or self._scarce):
            self._ask()
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

    def _ask(self) -> None:
        session, fids = self._session, list[int]()
        while len(self._spares) + self.asked < SPARES and self._handles.room():
            fids.append(session.new_fid())
            self.asked += 1
            self._handles.hold(1)
        try:
            found = session.send_together(Tsparex(self._fid, fid) for fid in fids)
        except EIO:
            self.asked -= len(fids)
            self._handles.hold(-len(fids))
            return
        for asked, fid in zip(found, fids, strict=True):
            came = partial(self._came, asked, fid)
            if asked.done:
                came()
            else:
                asked.when_done(came)

    def _came(self, asked: Pending, fid: int) -> None:
        self.asked -= 1
        fd = asked.take_fd()
        try:
            reply = expect(asked.result(), Rsparex)
        except Errno:
            self.enough = True
            self._handles.hold(-1)
            self._session.free_fid(fid)
            return
        made = Attributes.unpack(reply.block)
        if made.dev != self._dev:  # an overlayfs over several file systems
            self.enough = True
        if fd < 0 or self.enough:
            close_quietly(fd)
            self._handles.hold(-1)
            self._session.clunk(fid)
            return
        self._spares.append(Spare(fid, fd, reply.block))
        self._told(reply.room)  # perhaps it goes again
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
