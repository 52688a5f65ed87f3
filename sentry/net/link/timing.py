"""`Timing`: the timer of a whole stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentry.net.ip.layer import IpLayer


class Timing:
    """Of one stack: its layer is woken when the next thing is due."""

    def __init__(self, layer: IpLayer, loop: Any) -> None:
        self._layer = layer
        self._loop = loop
        self._timer: Any = None
        self._timer_ns: int | None = None
        layer.on_deadline = self.after

    def after(self) -> None:
        """Something has happened: be woken when the next thing is due."""
        due_ns = self._layer.timer()
        if due_ns is None or (self._timer_ns is not None and self._timer_ns <= due_ns):
            return
        self.stop()
        self._timer_ns = due_ns
        self._timer = self._loop.call_at(due_ns, self._due)

    def stop(self) -> None:
        """Until something happens again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timer_ns = None

    def _due(self) -> None:
        self._timer = self._timer_ns = None
        self._layer.timeout(self._loop.now_ns())
        self._layer.on_deadline()  # another one may have taken over
