"""`Watch`: the sessions of a sandbox, each with its points and its sinks.

It is `kernel.watch` while there is one, and changes the table of system calls when one comes or
goes. Making a session is work in steps, since there may be a thousand points in one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.errors import EEXIST, EINVAL, ENOENT, ENOSPC
from sentry.kernel.identity import child_identity, hears_fast_calls
from sentry.syscalls.interposing import Place, interpose
from sentry.syscalls.registry import TABLE
from sentry.watch import context, points, sinks
from sentry.watch.calls import Heard, Hook
from sentry.watch.events import Events

if TYPE_CHECKING:
    from sentry.config import TracePoint, TraceSession
    from sentry.kernel.kernel import Kernel
    from sentry.wait.steps import Steps
    from sentry.watch.context import Context
    from sentry.watch.points import Point
    from sentry.watch.sinks import Emit, Sink

MAX_SESSIONS: Final = 16


class Listener(Struct, frozen=True):
    """Who hears of one of the kernel's own points."""

    who: Context
    optional: frozenset[str]
    emit: Emit


class Session:
    """One of them."""

    def __init__(self, config: TraceSession, made: list[Sink]) -> None:
        self.name = config.name
        self.sinks = made
        self.heard: dict[int, list[tuple[Point, Heard]]] = {}
        """Of system calls, by number."""
        self.listeners: dict[str, Listener] = {}
        """Of the kernel's own points."""

    def _emitter(self, point: Point) -> Emit:
        """To all sinks."""
        emits = [sink.emitter(point) for sink in self.sinks]
        if len(emits) == 1:
            return emits[0]

        def emit(record: Any) -> None:
            for each in emits:
                each(record)

        return emit

    def add(self, wanted: TracePoint, point: Point) -> None:
        """Listen to a point."""
        who = context.maker(wanted.context_fields)
        asked = frozenset(wanted.optional_fields)
        emit = self._emitter(point)
        if point.number < 0:
            self.listeners[point.name] = Listener(who, asked, emit)
            return
        if points.is_raw(point):
            make = points.make_raw(point.number, who)
        else:
            declaration = TABLE[point.number]
            assert declaration is not None
            make = points.make_typed(declaration, asked, who)
        self.heard.setdefault(point.number, []).append((point, (make, emit)))


class Watch(Events):
    """All of a sandbox."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.sessions: dict[str, Session] = {}
        self.created = 0
        """Sessions so far."""
        self.is_changing = False
        """Somebody makes a session."""
        self._hooks: dict[int, Hook] = {}
        self._listeners: dict[str, list[Listener]] = {}

    def check(self, config: TraceSession, *, force: bool = False) -> None:
        """Raises: EEXIST, EINVAL, ENOSPC."""
        if config.name in self.sessions and not force:
            raise EEXIST(f'session "{config.name}" already exists')
        if not config.name:
            raise EINVAL("a session has a name")
        if config.name not in self.sessions and len(self.sessions) >= MAX_SESSIONS:
            raise ENOSPC(f"a sandbox has at most {MAX_SESSIONS} sessions")
        for sink in config.sinks:
            if sink.name not in sinks.SINKS:
                raise EINVAL(f'sink "{sink.name}" not found')

    def create(self, config: TraceSession, fds: list[int]) -> Steps[None]:
        """Begin a session, in place of one of that name. What is taken out of `fds` (of those sinks
        that have one, in their order) belongs to it. Preconditions: `check`, all declarations.

        Raises: EINVAL.
        """
        found = []
        for wanted in config.points:
            point = chosen(wanted, ignore_missing=config.ignore_missing)
            if point is not None:
                found.append((wanted, point))
            yield
        loop = self._kernel.loop
        made = [
            sinks.make(each, fds.pop(0) if each.has_fd else -1, loop) for each in config.sinks
        ]
        session = Session(config, made)
        for wanted, point in found:
            session.add(wanted, point)
            yield
        if config.name in self.sessions:
            self.delete(config.name)
        self.sessions[config.name] = session
        self.created += 1
        yield from self._rebuild()

    def delete(self, name: str) -> None:
        """End a session. Raises: ENOENT."""
        session = self.sessions.pop(name, None)
        if session is None:
            raise ENOENT(f'session "{name}" not found')
        for number in session.heard:
            self._hook(number)
        self._collect()
        for sink in session.sinks:
            sink.close()

    def flush(self) -> None:
        """The sandbox is over."""
        for session in self.sessions.values():
            for sink in session.sinks:
                sink.flush()

    def end(self) -> None:
        """Nobody hears any more, and who has listened is told so."""
        for name in list(self.sessions):
            self.delete(name)

    def leave(self) -> None:
        """In a fork: who listens hears of its parent, and nothing of this one."""
        fast = hears_fast_calls()
        for name, session in list(self.sessions.items()):
            for sink in session.sinks:
                sink.forget()
            self.delete(name)
        if fast:
            for task in self._kernel.pids.tasks.values():
                if not task.dead:
                    child_identity(task)

    def listeners(self, name: str) -> list[Listener]:
        """Of one of the kernel's own points."""
        return self._listeners.get(name, [])

    # --- the table

    def _rebuild(self) -> Steps[None]:
        for number in sorted({n for session in self.sessions.values() for n in session.heard}):
            self._hook(number)
            yield
        self._collect()

    def _collect(self) -> None:
        self._listeners = {}
        for session in self.sessions.values():
            for name, listener in session.listeners.items():
                self._listeners.setdefault(name, []).append(listener)

    def _hook(self, number: int) -> None:
        """Put a hook into the table, or what was there before; gVisor tells registers first."""
        heard = [
            (points.is_raw(point), point.name.endswith("/enter"), each)
            for session in self.sessions.values()
            for point, each in session.heard.get(number, ())
        ]
        if not heard:
            if self._hooks.pop(number, None) is not None:  # else it has ended before it had begun
                interpose(number, Place.WATCH, None)
            return
        hook = self._hooks.get(number)
        if hook is None:
            hook = self._hooks[number] = Hook(TABLE[number])
            interpose(number, Place.WATCH, hook.around)
        heard.sort(key=lambda one: not one[0])
        hook.enters = [each for _, begins, each in heard if begins]
        hook.exits = [each for _, begins, each in heard if not begins]


def chosen(wanted: TracePoint, *, ignore_missing: bool) -> Point | None:
    """The point that is asked for; None if there is none and that does not matter.

    Raises: EINVAL.
    """
    point = points.find(wanted.name)
    if point is None:
        if ignore_missing:
            return None
        raise EINVAL(f'point "{wanted.name}" not found')
    for asked, known in (
        (wanted.optional_fields, point.optional), (wanted.context_fields, point.contexts)
    ):  # fmt: skip
        for field in asked:
            if field not in known and not ignore_missing:
                raise EINVAL(f'configuring point "{wanted.name}": field "{field}" not found')
    return point
