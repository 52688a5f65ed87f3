"""`Mounter`: a `Caller` whose mount namespace is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sentry.vfs.file import Caller

if TYPE_CHECKING:
    from sentry.vfs.mounts import MountNamespace


class Mounter(Caller, Protocol):
    """The task, as mounting.py sees it."""

    @property
    def mounts(self) -> MountNamespace: ...
