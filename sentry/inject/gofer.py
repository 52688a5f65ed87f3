"""Faults of the Gofer: requests that it seems to refuse, or whose replies are late.

One that is refused was never sent. Those that bind fids, or end something, are let alone: what this
side knows of the session would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from gofer.p9.codec import Message
from gofer.p9.constants import NOFID
from gofer.p9.extensions import (
    Tcreatex,
    Tgetxattrx,
    Tlinkx,
    Tmakex,
    Treaddirx,
    Tremovexattrx,
    Trenamex,
    Tsetattrx,
    Tsetxattrx,
    Tsyncx,
    Twalkx,
)
from gofer.p9.messages import Rlerror, Tfsync, Tread, Tstatfs, Tunlinkat, Twrite
from sentry.fs.gofer.requests import Pending
from sentry.inject.calls import error_of
from sentry.inject.choice import Choice

if TYPE_CHECKING:
    from sentry.loop import Loop

FAULTY: Final = (
    Tcreatex, Tfsync, Tgetxattrx, Tlinkx, Tmakex, Tread, Treaddirx, Tremovexattrx, Trenamex,
    Tsetattrx, Tsetxattrx, Tstatfs, Tsyncx, Tunlinkat, Twalkx, Twrite,
)  # fmt: skip


class GoferFaults:
    """Of all sessions with a Gofer."""

    def __init__(self, loop: Loop, choices: Sequence[Choice]) -> None:
        self._loop = loop
        self._choices = choices

    def instead(self, request: Message, send: Callable[[], Pending]) -> Pending:
        """What the session gives for a request, which `send` sends."""
        chosen = self._chosen(request)
        if chosen is None:
            return send()
        rule, pending = chosen.rule, Pending(request)
        error = error_of(rule.errno) if rule.errno else None
        if error is not None:
            self._later(rule.delay_ns, partial(pending.complete, Rlerror(error.number)))
            return pending
        sent = send()

        def came() -> None:
            reply, fds = sent.taken()
            self._later(rule.delay_ns, partial(pending.complete, reply, fds))

        if sent.done:
            came()
        else:
            sent.when_done(came)
        return pending

    def _chosen(self, request: Message) -> Choice | None:
        if not isinstance(request, FAULTY):
            return None
        if isinstance(request, (Twalkx, Tcreatex)) and request.newfid != NOFID:
            return None
        return next((each for each in self._choices if each.takes()), None)

    def _later(self, delay_ns: int, complete: Callable[[], None]) -> None:
        if delay_ns:
            self._loop.call_at(self._loop.now_ns() + delay_ns, complete)
        else:
            complete()
