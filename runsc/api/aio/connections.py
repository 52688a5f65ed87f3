"""Connections of programs in a sandbox that are handed to functions of the caller's.

The sandbox's egress policy names a broker for them (docs/egress.md): a socket of this process's,
which has a name only while the policy is given.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import tomllib

from runsc.api import policies, states
from runsc.api.aio.keeping import command
from runsc.api.aio.poll import Lock
from runsc.api.aio.serving import AsyncListening, Handler
from runsc.api.aio.wire import ask
from runsc.api.errors import SandboxError
from runsc.api.told import Place
from sentry.control.answers import EgressState
from sentry.control.protocol import Request

QUEUE = 128


class AsyncConnections:
    """Those of one sandbox."""

    def __init__(self, state: str, sandbox_id: str, path: str) -> None:
        self._state = state
        self._sandbox_id = sandbox_id
        self._path = path
        self._folder = ""
        """The name that the socket has for a moment; as long as it is the same, connections that
        there are go on."""
        self._policy: str | None = None
        """The sandbox's own."""
        self._handlers: dict[Place, Handler] = {}
        self._told = ""
        """The policy with ours before it, as the sandbox has it."""
        self._listening: list[AsyncListening] = []
        self._lock = Lock()
        """Who has it tells the sandbox of one policy after the other."""

    async def serve(self, place: str, handler: Handler) -> None:
        """Raises: SandboxError, ValueError."""
        async with self._lock:
            await self._serve(policies.place_of(place), handler)

    async def _serve(self, found: Place, handler: Handler) -> None:
        if self._policy is None:
            reply = await ask(self._path, Request("egress", after=-1))
            if reply.egress is None:
                raise SandboxError(reply.error or "the sandbox does not say what may leave")
            self._policy = policies.told(reply.egress.policy, self._brokers())
        before = self._handlers.get(found)
        self._handlers[found] = handler
        if before is not None:
            return
        try:
            await self._tell()
        except BaseException:
            del self._handlers[found]
            raise

    async def _tell(self) -> None:
        """The sandbox, by another policy."""
        if not self._folder:
            name = policies.FOLDER.format(secrets.token_hex(8))
            self._folder = os.path.join(tempfile.gettempdir(), name)
        os.mkdir(self._folder, 0o700)
        broker, file = os.path.join(self._folder, "socket"), os.path.join(self._folder, "policy")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            policy = policies.served(self._policy or "", self._handlers, broker)
            with open(file, "w", encoding="utf-8") as written:
                written.write(policy)
            listener.bind(broker)
            listener.listen(QUEUE)
            await command(self._state, "egress", "set", self._sandbox_id, file)
        except BaseException:
            listener.close()
            raise
        finally:
            for path in (broker, file):
                if os.path.lexists(path):
                    os.unlink(path)
            os.rmdir(self._folder)
        self._told = policy
        older, self._listening = self._listening, [AsyncListening(listener, self._handlers)]
        for each in older:
            each.close()

    async def apart(self) -> EgressState | None:
        """What may leave the sandbox, without what is handed to this process; None: nobody judges
        that. Raises: SandboxEnded."""
        found = (await ask(self._path, Request("egress", after=-1))).egress
        if found is None or not self._listening or found.policy != self._told:
            self._handlers.clear()  # another policy has ended that
            self._policy = None
            if found is not None:
                policies.told(found.policy, self._brokers())
            return found
        own = self._policy or ""
        ours = _rules(found.policy) - _rules(own)
        return EgressState(own, used=[*found.used[:1], *found.used[1 + ours :]])

    def _brokers(self) -> tuple[str, ...]:
        found = states.load(self._state, self._sandbox_id)
        return (states.load(self._state, found.sandbox) if found.sandbox else found).brokers

    async def begin_again(self) -> None:
        """In a sandbox that has begun in the place of the one that there was. Raises:
        SandboxError."""
        async with self._lock:
            if self._handlers:
                await self._tell()

    def close(self) -> None:
        """Nothing is served any more."""
        while self._listening:
            self._listening.pop().close()


def _rules(policy: str) -> int:
    """How many it has."""
    return len(tomllib.loads(policy).get("rule", ()))
