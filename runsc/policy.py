"""What a policy may import, and nothing else: see docs/policies.md.

In a sandbox the same names are given to the module without this one (sentry.policy.module). Here
they are for editors, type checkers, and tests of a policy's own functions.
"""

from __future__ import annotations

from typing import Final

from sentry.policy.event import Event
from sentry.policy.module import in_network
from sentry.policy.outside import Ask as ask
from sentry.policy.rules import On
from sentry.policy.verdicts import ALLOW, CHANGE, DENY, KILL, RESULT, Verdict

__all__ = [
    "ALLOW", "CHANGE", "DENY", "KILL", "RESULT", "Event", "Verdict", "ask", "in_network", "log",
    "on",
]  # fmt: skip

on: Final = On()
log: Final = print
