"""How long a test waits for what has to come: about as long as one may take, for a machine that is
busy, or emulated, is slow. Tests are ended by their own time limit; this only says sooner, and in a
test's words, what has not come. The long tests have more to wait for, beside builds and loads."""

from __future__ import annotations

import os

TIMEOUT_S = int(os.environ.get("RUNSC_TEST_PATIENCE_S", "60"))
