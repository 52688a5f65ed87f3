"""How long a test waits for what has to come: about as long as one may take, for a machine that is
busy, or emulated, is slow. Tests are ended by their own time limit; this only says sooner, and in a
test's words, what has not come."""

from __future__ import annotations

import os

TIMEOUT_S = 1000 if "CPU_IS_EMULATED" in os.environ else 60
