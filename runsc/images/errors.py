"""What is wrong with an image, and how names out of one are shown."""

from __future__ import annotations

from runsc.errors import RuntimeFailure

SHOWN = 120
"""Characters of a name that a message has."""


class ImageError(RuntimeFailure):
    """An image cannot be used: one line that says where in it, and why."""


def shown(name: bytes | str) -> str:
    """A name out of an image, for a person: one line of printable characters, in quotes."""
    text = name if isinstance(name, str) else name.decode(errors="backslashreplace")
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
