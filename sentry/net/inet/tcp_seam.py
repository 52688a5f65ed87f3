"""Between TCP sockets and what has their connections by a link: protocols for types alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.inet.address import Endpoint
    from sentry.net.tcp.connection import Connection
    from sentry.net.tcp.keyed import Flow
    from sentry.net.tcp.listener import Listener
    from sentry.net.tcp.settings import Settings
    from sentry.vfs.file import Dest, Source


class EngineSide(Protocol):
    """sentry.net.inet.tcp_engine.Engine."""

    connection: Connection
    on_ending: Callable[[], object]

    @property
    def is_open(self) -> bool: ...
    @property
    def is_ending(self) -> bool: ...
    def has_enough(self) -> bool: ...
    def has_room(self) -> bool: ...
    def queues(self) -> tuple[int, int]: ...
    def info(self) -> bytes: ...
    def send(self, source: Source, flags: int) -> int: ...
    def receive(self, dest: Dest, flags: int, skip: int) -> int | None: ...
    def receive_urgent(self, dest: Dest, flags: int) -> Any: ...
    def tuned(self, level: int, name: int) -> None: ...
    def shut(self, how: int) -> None: ...
    def reset(self) -> None: ...
    def close(self, *, abort: bool) -> None: ...


class ListeningSide(Protocol):
    """sentry.net.inet.tcp_engine.Listening."""

    listener: Listener

    def tuned(self) -> None: ...
    def close(self) -> None: ...


class ByLink(Protocol):
    """sentry.net.inet.tcp_link.TcpByLink."""

    engines: dict[Flow, Any]
    on_over: Callable[[Flow], object]
    on_listen: Callable[[Any], object]
    on_silence: Callable[[Any], object]
    settings: Settings

    def connect(self, sock: Any, target: Endpoint, sender: object) -> EngineSide: ...
    def listen(self, sock: Any, backlog: int) -> ListeningSide: ...
    def totals(self) -> tuple[int, int]: ...
