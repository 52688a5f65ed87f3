"""The dialer, seen from the Sentry: it connects to brokers, whose sockets only it can reach."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from sentry.net.host.dial import pack
from sentry.net.host.process import NetworkProcess

if TYPE_CHECKING:
    from sentry.net.host.dial import Wanted
    from sentry.wait.sleep import Sleep


class Dialer(NetworkProcess):
    """The socket to it, of the same kind as that to the network process, and with such answers."""

    def dial(self, wanted: Wanted) -> Sleep:
        """A stream to a broker, which does not block and has had its line; -1: there is none.

        Raises: what connect(2) to it says, EAGAIN where its queue is full, ENETDOWN.
        """
        return self._ask(pack(wanted)).then(attrgetter("fd"))
