"""The program: `runsc`, and python -m runsc."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runsc.quick import Order

STARTS = frozenset({"create", "do", "restore", "run"})
"""Commands that make a sandbox."""
SERVES = frozenset({"zygote", "serve"})
"""Words of the one whose forks do."""


def main() -> None:
    """What engines ask most has a way of its own (`quick`); all else is the command line's.

    Where there will be a sandbox, its Sentry begins to import while the command line does.
    """
    gc.disable()
    _open_standard_streams()
    from runsc import quick  # noqa: PLC0415

    args = sys.argv[1:]
    order = quick.understood(args)
    starts = order.command in STARTS if order is not None else not STARTS.isdisjoint(args)
    begins = False
    if starts:
        code, begins = _by_zygote(order, args)
    else:
        if order is None and SERVES.issubset(args):
            _find_modules()
        code = _code(order)
    if code is None:
        _find_modules()
        code, is_used = _starting(order)
        begins &= is_used
    if begins:
        from runsc.zygote import beginning  # noqa: PLC0415

        beginning.begin()
    os._exit(code)  # what was written is out, and taking CPython down takes 3 ms


def _find_modules() -> None:
    """With fewer calls, and those that were compiled ahead as such."""
    from runsc.launch import finder  # noqa: PLC0415

    finder.install()


def carried_out(words: list[str], caller: int) -> int:
    """The same in a fork of the zygote: the exit code."""
    gc.disable()
    from runsc import quick  # noqa: PLC0415

    return _starting(quick.understood(words))[0]


def _by_zygote(order: Order | None, args: list[str]) -> tuple[int | None, bool]:
    """The exit code, if a zygote has carried it out; None if nothing has happened, and whether one
    is to begin afterwards: there is none, and it is somebody's command, not an engine's."""
    from runsc import quick  # noqa: PLC0415

    found = quick.leading(args)
    if found is None or found.command not in STARTS or found.flags["zygote"] == "off":
        return None, False
    if order is None and found.command != "do":  # a form of it that only `cli` knows
        return None, False
    from runsc.zygote import client, place  # noqa: PLC0415

    stands = order is not None and (found.command == "create" or order.given["detach"])
    root = found.flags["root"]
    if root is not None and not place.serves(root):
        return None, False
    try:
        return client.run("runsc", args, stands=stands), False
    except client.Unserved as reason:
        if found.flags["debug"]:
            from runsc.log import Log  # noqa: PLC0415

            log = Log(found.flags["log"], found.flags["log_format"], True)
            log.debug(f"without a zygote: {reason}")
        is_unheard = isinstance(reason, client.Unheard)
        return None, is_unheard and root is None and found.command != "create"


def _starting(order: Order | None) -> tuple[int, bool]:
    """A command that makes a sandbox, or may do so; and whether it has come to that."""
    from runsc.containers import signals  # noqa: PLC0415
    from runsc.launch import early  # noqa: PLC0415

    signals.end_by_exception()
    early.begin()
    early.begin_gofer()
    try:
        code = _code(order)
    except SystemExit as end:  # a signal, before there was a command to end
        code = int(end.code or 0)
    finally:
        is_unused = early.discard()
    return code, not is_unused


def _open_standard_streams() -> None:
    """A caller may have closed 0, 1 or 2; nothing else must land on these numbers."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdout is None:  # CPython has none for a number that was closed
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _code(order: Order | None) -> int:
    """The exit code; what was written is out."""
    code = order.carry_out() if order is not None else None
    if code is None:
        return _command_line()
    sys.stderr.flush()
    return code


def _command_line() -> int:
    """The same of any command line."""
    from runsc.cli import main as command_line  # noqa: PLC0415

    try:
        command_line()
    except SystemExit as end:
        sys.stderr.flush()
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    main()
