"""--policy and its annotation: who decides on system calls, read; what it says: sentry.policy.

A file whose name ends with .toml has rules, of which Python is made (policy_rules.py).
"""

from __future__ import annotations

import os
from typing import Final

from runsc.errors import RuntimeFailure
from sentry.config import PolicyConfig

ANNOTATION: Final = "dev.runsc.policy"
MAX_BYTES: Final = 1 << 16
LEARN: Final = "learn:"
"""In the place of a file: nothing is decided, and what programs do is told to who watches."""


def read(path: str) -> PolicyConfig:
    """A policy from a file. Raises: RuntimeFailure."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise RuntimeFailure(f"{path}: not UTF-8") from None
    return of_text("policy" if path.startswith("/proc/self/fd/") else path, text)


def of_text(name: str, text: str) -> PolicyConfig:
    """The same from its text. Raises: RuntimeFailure."""
    if name.endswith(".toml"):
        from runsc.launch import policy_rules  # noqa: PLC0415  few have such

        try:
            text = policy_rules.source(text)
        except ValueError as error:
            from runsc.launch.toml_places import placed  # noqa: PLC0415  only for a mistake

            raise RuntimeFailure(f"{name}: {placed(text, str(error))}") from None
    if len(text) > MAX_BYTES:
        raise RuntimeFailure(f"{name}: a policy has at most {MAX_BYTES} bytes")
    return PolicyConfig(name.rsplit("/", 1)[-1], text)


def asked_for(annotations: dict[str, str]) -> PolicyConfig | None:
    """Of a container. Raises: RuntimeFailure."""
    path = annotations.get(ANNOTATION)
    if path is None:
        return None
    return PolicyConfig(learns=True) if path == LEARN else read(path)



def mark(annotations: dict[str, str], path: str) -> None:
    """A container is to have this policy."""
    annotations[ANNOTATION] = path if path == LEARN else os.path.abspath(path)
