"""What dmesg(1) shows: the ring buffer of a kernel that has little to say."""

from __future__ import annotations

from typing import Final

from sentry.wait.queue import WaitQueue


class SystemLog:
    """The text, and what of it nobody has read."""

    __slots__ = ("queue", "text", "unread")
    SIZE: Final = 1 << 17

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.unread = text
        self.queue = WaitQueue()
