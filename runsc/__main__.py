"""The program: `runsc`, and python -m runsc."""

from __future__ import annotations

import gc
import os
import sys

STARTS = frozenset({"create", "do", "run"})
"""Commands that make a sandbox."""


def main() -> None:
    """`exec` and `state`, which are to be quick, have ways of their own; then the command line.

    Where there will be a sandbox, its Sentry begins to import while the command line does.
    """
    gc.disable()
    if "exec" in sys.argv[1:]:
        from runsc import quick  # noqa: PLC0415

        code = quick.attempt(sys.argv[1:])
        if code is not None:
            os._exit(code)  # nothing is buffered, and taking CPython down takes its time
    elif "state" in sys.argv[1:]:
        from runsc import quick_state  # noqa: PLC0415

        if quick_state.attempt(sys.argv[1:]) == 0:
            os._exit(0)
    elif not STARTS.isdisjoint(sys.argv[1:]):
        from runsc.launch import finder  # noqa: PLC0415

        finder.install()
        from runsc.containers import signals  # noqa: PLC0415
        from runsc.launch import early  # noqa: PLC0415

        signals.end_by_exception()

        _open_standard_streams()
        early.begin()
        try:
            code = _command_line()
        except SystemExit as end:  # a signal, before there was a command to end
            code = int(end.code or 0)
        finally:
            early.discard()
        os._exit(code)  # taking CPython down takes 3 ms
    _open_standard_streams()
    sys.exit(_command_line())


def _open_standard_streams() -> None:
    """A caller may have closed 0, 1 or 2; nothing else must land on these numbers."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _command_line() -> int:
    """Its exit code; what it wrote is flushed."""
    from runsc.cli import main as command_line  # noqa: PLC0415

    try:
        command_line()
    except SystemExit as end:
        sys.stderr.flush()
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    main()
