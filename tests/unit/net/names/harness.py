"""A forwarder with programs and nameservers around it, and a clock that tests move."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from sentry.net.names.asking import Ask, Transport
from sentry.net.names.forwarder import Forwarder, Settings
from sentry.net.names.messages import Question
from sentry.net.names.pending import Client, Effect, Release, Reply
from tests.unit.net.names.wires import SECOND_SERVER, SERVER

SECOND = 1_000_000_000


class Outside:
    """What went out is looked at, and answered, here."""

    def __init__(
        self, judge: Callable[[Question, object], bool] = lambda *_: True, seed: int = 1
    ) -> None:
        ports = itertools.count(30000)
        chance = random.Random(seed)
        self.now_ns = 1000 * SECOND
        self.forwarder = Forwarder(
            Settings((SERVER, SECOND_SERVER)), judge, lambda: next(ports), chance.randbytes
        )
        self.replies: list[Reply] = []
        self.asks: list[Ask] = []
        """Those that wait for an answer."""

    def note(self, effects: list[Effect]) -> None:
        """Do what was said."""
        for effect in effects:
            match effect:
                case Reply():
                    self.replies.append(effect)
                case Ask():
                    self.asks.append(effect)
                case Release():
                    self.asks = [ask for ask in self.asks if ask.port != effect.port]

    def program_asks(
        self,
        data: bytes,
        token: object = "program",
        transport: Transport = Transport.UDP,
        program: object = None,
    ) -> bytes | None:
        """The reply to `data`, if there is one at once."""
        before = len(self.replies)
        client = Client(token, program, transport)  # type: ignore[arg-type]
        self.note(self.forwarder.asked(data, client, self.now_ns))
        return self.replies[-1].data if len(self.replies) > before else None

    def server_answers(self, make: Callable[[bytes], bytes], at: int = -1) -> bytes | None:
        """What a program hears when the server of an `Ask` has answered."""
        before, ask = len(self.replies), self.asks[at]
        self.note(self.forwarder.answered(make(ask.data), ask.server, ask.port, self.now_ns))
        return self.replies[-1].data if len(self.replies) > before else None

    def later(self, seconds: float) -> None:
        """Time goes by."""
        self.now_ns += int(seconds * SECOND)
        deadline_ns = self.forwarder.deadline_ns
        if deadline_ns is not None and deadline_ns <= self.now_ns:
            self.note(self.forwarder.tick(self.now_ns))
