"""System calls that somebody listens to: what stands for them in the table.

A call that nobody listens to is not touched, so it costs nothing. In the place of one that is
listened to stands a `Hook`, between the dispatch and the decoder on one side and the handler, with
who decides on the call before it, on the other (sentry/syscalls/interposing.py). Who listens sees
the arguments that the handler gets: paths are read once, before.

A call begins once, however often it is made again (sentry/wait/again.py), and ends once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import Errno
from sentry.kernel.task import GONE, RESUME
from sentry.platform.interface import Reg
from sentry.syscalls.args import UserPath
from sentry.syscalls.registry import Declaration, compile_decoder
from sentry.wait.again import CURRENT, NotNow, kept
from sentry.wait.fiber import Interrupted, RestartBlock, RestartNoHand, RestartNoIntr
from sentry.wait.sleep import Sleep
from sentry.watch.messages import Exit
from sentry.watch.points import early

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.registry import Handler
    from sentry.watch.points import Make

RESTARTS: Final[dict[type[BaseException], int]] = {
    Interrupted: 512, RestartNoIntr: 513, RestartNoHand: 514, RestartBlock: 516,
}  # fmt: skip
"""include/linux/errno.h: what a call that a signal ended gives the kernel itself."""
ERRNO_MAX: Final = 4095
Leave = Callable[[Any], None]
Emit = Callable[[Any], object]
"""Takes a record."""
Heard = tuple["Make", Emit]


class Hook:
    """Of one call: who hears of its beginning and of its end."""

    __slots__ = ("_call", "_early", "_handler", "_paths", "_raw", "begun", "enters", "exits")

    def __init__(self, declaration: Declaration | None) -> None:
        self.enters: list[Heard] = []
        self.exits: list[Heard] = []
        self.begun = 0
        """Calls whose arguments could be read."""
        if declaration is None:
            return
        self._paths = [
            index
            for index, (_, mark) in enumerate(declaration.args)
            if UserPath in (mark.names or {}).values()
        ]
        self._early = [source.read for source in early(declaration)]
        self._call = compile_decoder(
            declaration.name, self.handle, declaration.args, declaration.order,
            declaration.counts,
        )  # fmt: skip

    def around(self, declaration: Declaration | None, handler: Handler) -> Hook:
        """The entry of the table, which calls `handler` from now on."""
        if declaration is None:
            self._call = handler
        else:
            self._handler = handler
        return self

    def __call__(self, task: Task, *raw: int) -> Any:
        """The entry of the table."""
        begun = self.begun
        self._raw = raw  # the decoder has them and no place to hand them on
        try:
            return self._call(task, *raw)
        except Errno as error:
            if self.begun == begun:  # an argument could not be read, or there is no such call
                leave = kept(self) or self._begin(task, raw)
                leave(-error.number)
            raise

    def handle(self, task: Task, *values: Any) -> Any:
        """The handler, as the decoder calls it."""
        if CURRENT.call is not None and (leave := CURRENT.call.answers.get(self)) is not None:
            return self._settle(leave, partial(self._handler, task, *values))
        for index in self._paths:
            _read(values[index])
        self.begun += 1
        raw, seen = self._raw, values
        if self._early:
            seen += tuple(read(task, raw) for read in self._early)
        for make, emit in self.enters:
            emit(make(task, raw, seen, None))
        try:
            result = self._handler(task, *values)
        except BaseException as error:
            self._failed(partial(self._end, task, raw, seen), error)
            raise
        if result is None or result.__class__ is int:
            self._end(task, raw, seen, result)
            return result
        return self._settled(partial(self._end, task, raw, seen), result)

    def _begin(self, task: Task, raw: tuple[int, ...]) -> Leave:
        """Of a call whose arguments cannot be read."""
        for make, emit in self.enters:
            emit(make(task, raw, None, None))
        return partial(self._end, task, raw, None)

    def _end(
        self, task: Task, raw: tuple[int, ...], values: tuple[Any, ...] | None, result: Any
    ) -> None:
        if not self.exits:
            return
        if result is RESUME:
            result = (task.ctx.regs[Reg.RAX] ^ 1 << 63) - (1 << 63)
        elif result is None or result is GONE:
            result = 0
        ended = Exit(0, -result) if -ERRNO_MAX <= result < 0 else Exit(result)
        for make, emit in self.exits:
            emit(make(task, raw, values, ended))

    def _settle(self, leave: Leave, finish: Callable[[], Any]) -> Any:
        try:
            result = finish()
        except BaseException as error:
            self._failed(leave, error)
            raise
        return self._settled(leave, result)

    def _settled(self, leave: Leave, result: Any) -> Any:
        if isinstance(result, Sleep):
            return result.ended(partial(self._settle, leave))
        if isinstance(result, Coroutine):
            return self._rest(leave, result)
        leave(result)
        return result

    async def _rest(self, leave: Leave, rest: Coroutine[Any, Any, Any]) -> Any:
        try:
            result = await rest
        except BaseException as error:
            self._failed(leave, error)
            raise
        leave(result)
        return result

    def _failed(self, leave: Leave, error: BaseException) -> None:
        if isinstance(error, NotNow):
            error.call.answers[self] = leave
        elif isinstance(error, Errno):
            leave(-error.number)
        elif type(error) in RESTARTS:
            leave(-RESTARTS[type(error)])


def _read(path: UserPath) -> None:
    """Once: the handler goes on with the same. What cannot be read it finds out itself, in turn."""
    if path.path is None and path.addr:
        try:
            path.read()
        except Errno:
            return
