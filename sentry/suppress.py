"""`suppress`: what that of `contextlib` does. That module is 0.1 MiB of each process."""

from __future__ import annotations

from types import TracebackType


class suppress:
    """`with suppress(ENOENT):` goes on behind the block if that is raised in it."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return kind is not None and issubclass(kind, self._kinds)
