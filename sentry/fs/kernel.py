"""The kernel and its tasks as file systems see them: what they show, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sentry.auth.userns import NamespaceCounts
    from sentry.fs.pseudo.cpu import Cpu
    from sentry.platform.interface import Platform
    from sentry.vfs.vfs import Vfs


class Keys(Protocol):
    """The keys of the sandbox."""

    def show_users(self, reader: Any) -> Iterator[str]: ...


class Forks(Protocol):
    """What programs hear of forks."""

    count: int
    signals: dict[Any, int]


class Services(Protocol):
    """Singletons: sentry.kernel.services says what each is."""

    boot_id: str
    host_ids: dict[str, tuple[tuple[int, int, int], ...]]
    cpu: Cpu | None
    keys_text: Callable[[Any], Iterator[str]] | None
    namespace_counts: NamespaceCounts
    sysctls: dict[str, str]

    @property
    def forks(self) -> Forks: ...
    @property
    def proc_files(self) -> Any: ...
    @property
    def logins(self) -> Iterator[int]: ...
    @property
    def keys(self) -> Keys | None: ...


class Kernel(Protocol):
    """What all tasks share."""

    platform: Platform
    vfs: Vfs
    cpus: int
    boot_ns: int

    @property
    def clock(self) -> Any: ...
    @property
    def counters(self) -> Any: ...
    @property
    def further(self) -> Sequence[Any]: ...
    @property
    def loop(self) -> Any: ...
    @property
    def pids(self) -> Any: ...
    @property
    def services(self) -> Services: ...
    @property
    def uts(self) -> Any: ...
