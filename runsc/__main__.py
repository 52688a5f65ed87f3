"""The program: `runsc`, and python -m runsc."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """`exec` has a way of its own, for it is to be quick; the rest is the command line's."""
    gc.disable()
    if "exec" in sys.argv[1:]:
        from runsc import quick  # noqa: PLC0415

        code = quick.attempt(sys.argv[1:])
        if code is not None:
            os._exit(code)  # nothing is buffered, and taking CPython down takes its time
    from runsc.cli import main as command_line  # noqa: PLC0415

    command_line()


if __name__ == "__main__":
    main()
