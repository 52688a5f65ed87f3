"""Run a coroutine at once as far as it goes without sleeping.

Most system calls that may sleep do not. `eager` gives their result without a fiber; one that does
sleep comes back as a coroutine that goes on from there.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def eager(coro: Coroutine[Any, Any, T]) -> T | Coroutine[Any, Any, T]:
    """What the coroutine returns, or a coroutine for the rest of it. Raises what it raises."""
    try:
        request = coro.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    return _go_on(coro, request)


async def _go_on(coro: Coroutine[Any, Any, Any], request: Any) -> Any:
    return await _rest(coro, request)


@types.coroutine
def _rest(coro: Coroutine[Any, Any, Any], request: Any) -> Generator[Any, Any, Any]:
    """Hand on the request that is already there, then those that follow."""
    try:
        while True:
            try:
                value = yield request
            except BaseException as error:
                if isinstance(error, GeneratorExit):
                    coro.close()
                    raise
                request = coro.throw(error)
            else:
                request = coro.send(value)
    except StopIteration as end:
        return end.value
