"""Call again: what a plain operation raises when it has to sleep first.

An operation that finds all it needs in memory is a plain function and pays nothing for the case
that it does not. There it raises `NotNow`, which carries what to wait for; whoever drives the call
(the dispatch, or `again` inside a coroutine) waits and calls the operation again, from its start.

What makes that right is the `Call`, which begins with the first NotNow and ends with the call:

- `answers`: what has been found or sent by now. A request is made once: its pending reply is an
  answer (`kept`), and what came of it counts as fresh. An operation that is long keeps its place
  there, and one that has changed something what it has done: it catches NotNow on its way out.
- locks (`sentry.wait.lock.Lock`) and files in use are the call's until it ends. A lock costs a
  call that never sleeps nothing: between two sleeps nobody else runs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from sentry.ahead import mypyc_attr
from sentry.errors import Errno
from sentry.wait.eager import eager

P = ParamSpec("P")
T = TypeVar("T")


class Kept(Protocol):
    """What a call holds on to: a lock, a file."""

    def let_go(self) -> None: ...


class File(Kept, Protocol):
    """An open file: `refs` counts its users, and `let_go` is one less."""

    refs: int


class Call:
    """What a call has, from its first sleep to its end."""

    __slots__ = ("answers", "held")

    def __init__(self) -> None:
        self.answers: dict[Hashable, Any] = {}
        self.held: list[Kept] = []

    def hold(self, kept: Kept) -> None:
        """Until the end."""
        if kept not in self.held:
            self.held.append(kept)

    def hold_files(self, *files: File) -> None:
        """The descriptions that it was made with stay in use."""
        for file in files:
            if file not in self.held:
                file.refs += 1
                self.held.append(file)

    def close(self) -> None:
        """The call is over, however it ended."""
        held, self.held = self.held, []
        for kept in held:
            kept.let_go()


class Current:
    """The call that is being made again, while it is; None during a first attempt."""

    __slots__ = ("call",)

    def __init__(self) -> None:
        self.call: Call | None = None


CURRENT: Final = Current()


def kept(key: Hashable) -> Any:
    """The answer that this call has kept under `key`; None in its first attempt."""
    call = CURRENT.call
    return None if call is None else call.answers.get(key)


@mypyc_attr(allow_interpreted_subclasses=True)
class NotNow(Exception):
    """Wait first, then call again.

    `wait` makes the coroutine that waits; what it raises ends the call. An `answer` is what the
    next attempt finds under `key`.
    """

    def __init__(
        self,
        wait: Callable[[], Coroutine[Any, Any, object]],
        key: Hashable = None,
        answer: Any = None,
    ) -> None:
        super().__init__()
        self.call = CURRENT.call or Call()
        self.wait = wait
        self.attempt: Callable[[], Any] | None = None
        """How to call again where the arguments are decoded already."""
        if key is not None:
            self.call.answers[key] = answer


class Keeping:
    """`with` it: if the call has to be made again, it finds `answer` under `key`.

    For what has been changed or taken and cannot be had twice.
    """

    __slots__ = ("_answer", "_key")

    def __init__(self, key: Hashable, answer: Any) -> None:
        self._key = key
        self._answer = answer

    def __enter__(self) -> None:
        """Nothing is kept yet."""

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if isinstance(error, NotNow):
            error.call.answers[self._key] = self._answer


def settled(key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of a sequence of steps that this call runs once, while it sleeps.

    Raises: NotNow, and nothing has begun; then what the sequence has raised.
    """
    outcome: list[Any] | None = kept(key)
    if outcome is None:
        outcome = []
        raise NotNow(partial(_settle, work, outcome), key, outcome)
    result, error = outcome
    if error is not None:
        if isinstance(error, Errno):  # a traceback would be a circle
            raise type(error)(*error.args)
        raise error
    return cast("T", result)


def begun(key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`settled` for a sequence that often need not sleep: it begins in place.

    So who catches its NotNow has to call again.
    """
    if kept(key) is None:
        rest: Any = eager(work())
        if not isinstance(rest, Coroutine):
            return cast("T", rest)
        return cast("T", settled(key, lambda: rest))
    return settled(key, work)


async def _settle(work: Callable[[], Coroutine[Any, Any, Any]], outcome: list[Any]) -> None:
    try:
        outcome += await work(), None
    except Errno as error:
        outcome += None, error.with_traceback(None)
    except Exception as error:
        outcome += None, error


async def finished(need: NotNow, attempt: Callable[[], Any]) -> Any:
    """Wait and call again until the operation has ended; its result. Raises: what it raises."""
    call = need.call
    try:
        while True:
            attempt = need.attempt or attempt
            await need.wait()
            outer, CURRENT.call = CURRENT.call, call
            late: NotNow | None = None
            try:
                result = attempt()
            except NotNow as another:
                late = another.with_traceback(None)  # which has this frame: a circle
            finally:
                CURRENT.call = outer
            if late is not None:
                need = late
                continue
            if not isinstance(result, Coroutine):
                return result
            try:
                return await result
            except NotNow as another:  # raised by the coroutine, which starts anew
                need = another.with_traceback(None)
                call.answers |= need.call.answers
                need.call.close()
    finally:
        call.close()


async def again(
    operation: Callable[P, T | Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs
) -> T:
    """Call a plain operation from a coroutine. Gives and raises what it gives and raises."""
    outer, CURRENT.call = CURRENT.call, None
    try:
        result = operation(*arguments, **options)
    except NotNow as error:
        need = error.with_traceback(None)
    else:
        if not isinstance(result, Coroutine):
            return result
        CURRENT.call = outer
        try:
            return await result
        except NotNow as error:  # raised by the coroutine, which starts anew
            need = error.with_traceback(None)
    finally:
        CURRENT.call = outer

    def attempt() -> Any:
        return operation(*arguments, **options)

    return cast("T", await finished(need, attempt))
