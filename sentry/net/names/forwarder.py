"""What programs ask of nameservers: judged, answered from the cache, or asked outside.

Bytes and a time come in, `Effect`s go out; who calls has the sockets. RFC 1035, 5452, 5625.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from dns.flags import CD, TC
from dns.rcode import BADVERS, FORMERR, NOERROR, NOTIMP, NXDOMAIN, SERVFAIL
from msgspec import Struct

from sentry.net.inet.address import Endpoint
from sentry.net.names.asking import Ask, Transport
from sentry.net.names.cache import NS, Cache, Key
from sentry.net.names.chain import FAILURE_S, Found, follow, of_host
from sentry.net.names.given import Given
from sentry.net.names.messages import EDNS_DO, Answer, Query, Question
from sentry.net.names.pending import (
    MAX_WRONG,
    TCP_NS,
    TRIES_NS,
    Attempt,
    Client,
    Effect,
    Pending,
    Release,
    Reply,
    attempt,
    our_edns,
)
from sentry.net.names.reader import Malformed, read_answer, read_query
from sentry.net.names.writer import (
    MAX_TCP,
    NOTHING,
    Body,
    udp_limit,
    write_body,
    write_reply,
)

MAX_PENDING: Final = 256
TICK: Final = 16
"""Questions that are asked again in one step."""
PLAIN_NS: Final = 600 * NS
"""For how long a server that refuses EDNS is asked without (RFC 6891, 6.2.2)."""


class Settings(Struct, frozen=True):
    """Of resolv.conf and of the policy."""

    servers: tuple[Endpoint, ...]
    refusal: int = NXDOMAIN
    """The RCODE for a name that is not allowed: NXDOMAIN or REFUSED."""
    hosts: dict[str, tuple[bytes, ...]] = {}
    """Names whose addresses nobody has to be asked for: 16 bytes each, IPv4 ones mapped."""


class Counters(Struct):
    """What has happened."""

    asked: int = 0
    malformed: int = 0
    refused: int = 0
    cached: int = 0
    sent: int = 0
    unexpected: int = 0
    """Answers to nothing that was asked, or that do not fit it."""
    failed: int = 0


class Forwarder:
    """The resolver of a sandbox.

    `judge(question, program)` says whether a program may ask for its name, which nobody may where
    it has no form that policy knows; `new_port()` gives a free port that cannot be foreseen, for
    each `Ask` one.
    """

    def __init__(
        self,
        settings: Settings,
        judge: Callable[[Question, object], bool],
        new_port: Callable[[], int],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.settings = settings
        self.given = Given()
        self.cache = Cache()
        self.counters = Counters()
        self._judge = judge
        self._new_port = new_port
        self._random = random
        self._pending: dict[Key, Pending] = {}
        self._by_port: dict[int, Pending] = {}
        self._plain_until_ns: dict[Endpoint, int] = {}

    @property
    def deadline_ns(self) -> int | None:
        """When `tick` has something to do."""
        return min((pending.deadline_ns for pending in self._pending.values()), default=None)

    def configure(self, settings: Settings) -> None:
        """Other nameservers, or another refusal; what others have answered is forgotten."""
        if settings.servers != self.settings.servers:
            self.cache.clear()
            self._plain_until_ns.clear()
        self.settings = settings

    def asked(self, data: bytes, client: Client, now_ns: int) -> list[Effect]:
        """A message of a program."""
        self.counters.asked += 1
        try:
            query = read_query(data)
        except Malformed:
            self.counters.malformed += 1
            return []
        if query.rcode != NOERROR or query.question is None:
            return [_reply(query, client, query.rcode)]
        may_ask = self._judge(query.question, client.program)
        if query.question.name is None or not may_ask:
            self.counters.refused += 1
            return [_reply(query, client, self.settings.refusal)]
        known = self.settings.hosts.get(query.question.name)
        if known is not None:
            return self._tell([(query, client)], of_host(query.question, known), 0, now_ns)
        edns_flags = query.edns.flags & EDNS_DO if query.edns else 0
        key = Key(query.question.key, query.question.kind, query.flags & CD | edns_flags)
        cached = self.cache.get(key, now_ns)
        if cached is not None:
            self.counters.cached += 1
            return self._tell([(query, client)], cached.found, cached.elapsed_s(now_ns), now_ns)
        return self._wait(key, query, client, now_ns)

    def answered(self, data: bytes, server: Endpoint, port: int, now_ns: int) -> list[Effect]:
        """A message of `server` to a port that an `Ask` has named."""
        pending = self._by_port.get(port)
        if pending is None or pending.attempts[port].server != server:
            self.counters.unexpected += 1
            return []
        was = pending.attempts[port]
        try:
            answer = read_answer(data)
        except Malformed:
            return self._unexpected(pending, port, now_ns)
        if answer.ident != was.ident or not _is_about(answer, was):
            return self._unexpected(pending, port, now_ns)
        if was.transport is Transport.UDP:
            exact = answer.question is None or answer.question.wire == was.question.wire
            if answer.flags & TC or not exact:
                return self._instead(pending, port, Transport.TCP, now_ns)
        if was.edns and answer.rcode in (FORMERR, NOTIMP, BADVERS):
            self._plain_until_ns[server] = now_ns + PLAIN_NS
            return self._instead(pending, port, was.transport, now_ns)
        found = follow(pending.key.name, pending.key.kind, answer)
        if found.rcode not in (NOERROR, NXDOMAIN) and self._has_more(pending):
            return self._next(pending, now_ns)
        return self._finish(pending, found, now_ns)

    def failed(self, port: int, now_ns: int) -> list[Effect]:
        """The server of an `Ask` cannot be reached, or has ended the connection."""
        pending = self._by_port.get(port)
        if pending is None:
            return []
        effects = self._drop_attempt(pending, port)
        return effects if pending.attempts else effects + self._next(pending, now_ns)

    def left(self, token: object) -> None:
        """A client has gone; what it has asked is still answered for the cache."""
        for pending in self._pending.values():
            pending.waiting = [item for item in pending.waiting if item[1].token != token]

    def tick(self, now_ns: int) -> list[Effect]:
        """What has waited long enough is asked again, or has failed."""
        due = [pending for pending in self._pending.values() if pending.deadline_ns <= now_ns]
        effects: list[Effect] = []
        for pending in due[:TICK]:
            effects += self._next(pending, now_ns)
        return effects

    def _wait(self, key: Key, query: Query, client: Client, now_ns: int) -> list[Effect]:
        """For an answer that somebody waits for already, or that is asked for now."""
        assert query.question is not None
        pending = self._pending.get(key)
        if pending is not None:
            joined = pending.join(query, client)
            return [] if joined else [_reply(query, client, SERVFAIL)]
        if len(self._pending) >= MAX_PENDING or not self.settings.servers:
            return [_reply(query, client, SERVFAIL)]
        pending = self._pending[key] = Pending(key, query.question)
        pending.join(query, client)
        return self._next(pending, now_ns)

    def _has_more(self, pending: Pending) -> bool:
        """Whether there is a server, or a turn of all, that was not tried."""
        return pending.tries < min(len(TRIES_NS), 2 * len(self.settings.servers))

    def _next(self, pending: Pending, now_ns: int) -> list[Effect]:
        """Ask the next server, or give up."""
        servers = self.settings.servers
        if not self._has_more(pending):
            return self._give_up(pending, now_ns)
        server = servers[pending.tries % len(servers)]
        wrong = pending.wrong >= MAX_WRONG
        ask = self._try(pending, server, Transport.TCP if wrong else Transport.UDP, now_ns)
        pending.deadline_ns = now_ns + TRIES_NS[pending.tries]
        pending.tries += 1
        return [ask]

    def _try(self, pending: Pending, server: Endpoint, transport: Transport, now_ns: int) -> Effect:
        plain = self._plain_until_ns.get(server, 0) > now_ns
        edns = None if plain else our_edns(pending.key.flags & EDNS_DO)
        made, data = attempt(pending, server, transport, edns, self._random)
        port = self._new_port()
        assert port not in self._by_port
        pending.attempts[port] = made
        self._by_port[port] = pending
        pending.deadline_ns = now_ns + TCP_NS
        self.counters.sent += 1
        return Ask(server, port, transport, data)

    def _instead(
        self, pending: Pending, port: int, transport: Transport, now_ns: int
    ) -> list[Effect]:
        """Ask the server of an attempt in another way."""
        server = pending.attempts[port].server
        released = self._drop_attempt(pending, port)
        return [*released, self._try(pending, server, transport, now_ns)]

    def _unexpected(self, pending: Pending, port: int, now_ns: int) -> list[Effect]:
        """Something that does not fit: perhaps a guess, and the true answer is on its way."""
        self.counters.unexpected += 1
        was = pending.attempts[port]
        if was.transport is Transport.TCP:
            return self.failed(port, now_ns)
        pending.wrong += 1
        if pending.wrong != MAX_WRONG:
            return []
        return self._instead(pending, port, Transport.TCP, now_ns)

    def _give_up(self, pending: Pending, now_ns: int) -> list[Effect]:
        self.counters.failed += 1
        return self._finish(pending, Found(SERVFAIL, 0, (), (), FAILURE_S, (), 0), now_ns)

    def _finish(self, pending: Pending, found: Found, now_ns: int) -> list[Effect]:
        """Tell all who wait."""
        effects: list[Effect] = []
        for port in list(pending.attempts):
            effects += self._drop_attempt(pending, port)
        del self._pending[pending.key]
        self.cache.put(pending.key, found, now_ns)
        return effects + self._tell(pending.waiting, found, 0, now_ns)

    def _tell(
        self, clients: Sequence[tuple[Query, Client]], found: Found, elapsed_s: int, now_ns: int
    ) -> list[Effect]:
        """Give an answer to those who have asked, and remember that they know its addresses."""
        effects: list[Effect] = []
        body: Body | None = None
        for query, client in clients:
            question = query.question
            assert question is not None and question.name is not None
            if body is None:
                body = write_body(question, found.answer, found.authority, elapsed_s)
                ttl_ns = max(found.addresses_s - elapsed_s, 0) * NS
                for ip in found.addresses:
                    self.given.remember(ip, question.name, ttl_ns, now_ns)
            limit = udp_limit(query) if client.transport is Transport.UDP else MAX_TCP
            data = write_reply(query, found.rcode, body, found.flags, limit)
            effects.append(Reply(client.token, data))
        return effects

    def _drop_attempt(self, pending: Pending, port: int) -> list[Effect]:
        del pending.attempts[port]
        del self._by_port[port]
        return [Release(port)]


def _is_about(answer: Answer, was: Attempt) -> bool:
    """Whether it repeats the question; some who understand nothing repeat none."""
    if answer.question is None:
        return answer.rcode in (FORMERR, NOTIMP)
    return (answer.question.key, answer.question.kind) == (was.question.key, was.question.kind)


def _reply(query: Query, client: Client, rcode: int) -> Reply:
    """An answer without records."""
    limit = udp_limit(query) if client.transport is Transport.UDP else MAX_TCP
    return Reply(client.token, write_reply(query, rcode, NOTHING, 0, limit))
