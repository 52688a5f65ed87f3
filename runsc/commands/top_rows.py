"""What `runsc top` shows, as cells and as text. Names of processes come from inside."""

from __future__ import annotations

from runsc.containers.measuring import Watch, Watched
from runsc.containers.state import status
from runsc.log import printable
from runsc.report.plots import amount, size

HEADS = ("ID", "STATUS", "TASKS", "CPU%", "CALLS/s", "FAULTS/s", "MEMORY", "OF", "PKTS IN/s",
         "PKTS OUT/s", "OOM")  # fmt: skip
PROCESS_HEADS = ("PID", "PPID", "UID", "STATE", "THREADS", "CPU s", "COMMAND")
WORDS = frozenset({"ID", "STATUS", "STATE", "COMMAND"})
"""Columns without figures, which begin at the left."""
ALL_WIDTH, MOST_WIDTH = 96, 66
"""Columns of a terminal that all cells but the ID take, and those before the packets."""
LEAST_ID = 12
MAX_PROCESSES = 500
"""Of one sandbox that are shown."""


def row(watched: Watched) -> tuple[str, ...]:
    """The cells of a sandbox. A sandbox that says nothing has none."""
    state, figures = watched.state, watched.figures
    if not watched.is_measured:
        return (state.id, status(state), *["-"] * (len(HEADS) - 2))
    calls = amount(figures.calls) if figures.calls >= 0 else "-"
    return (
        state.id, status(state), str(figures.tasks), f"{figures.cpu * 100:.1f}", calls,
        amount(figures.faults), size(figures.memory), size(figures.limit),
        amount(figures.received), amount(figures.sent), str(figures.kills),
    )  # fmt: skip


def short(name: str, width: int) -> str:
    """A sandbox's name as there is room for it in a terminal so wide: engines give 64 digits."""
    rest = ALL_WIDTH if width >= ALL_WIDTH + LEAST_ID else MOST_WIDTH
    room = max(LEAST_ID, width - rest)
    return name if len(name) <= room else f"{name[: room - 1]}…"


def processes(watched: Watched) -> list[tuple[str, ...]]:
    """The cells of its processes, most CPU time first. Names come from inside."""
    found = sorted(watched.processes, key=lambda each: -each.cpu_ns)
    return [
        (str(each.pid), str(each.ppid), str(each.uid), harmless(each.state, 2), str(each.threads),
         f"{each.cpu_ns / 1e9:.2f}", harmless(each.command, 200))
        for each in found[:MAX_PROCESSES]
    ]  # fmt: skip


def harmless(text: str, most: int) -> str:
    """One line of it that moves no terminal."""
    return printable(text).replace("\n", "?").replace("\t", " ")[:most]


def lines(watch: Watch, *, with_processes: bool) -> list[str]:
    """All as text."""
    sandboxes = list(watch.sandboxes.values())
    result = _table([HEADS, *map(row, sandboxes)])
    if with_processes:
        for watched in sandboxes:
            result += ["", *_table([PROCESS_HEADS, *processes(watched)])]
    return result


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    begins = ["<" if head in WORDS else ">" for head in rows[0]]
    form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(begins, widths, strict=True))
    return [form.format(*each).rstrip() for each in rows]
