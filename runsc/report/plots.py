"""Plots in SVG: bars of processes over time, lines, bars by size. Colours are classes (`STYLE`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runsc.report.lines import Rate
from runsc.report.summary import Process, Summary
from runsc.report.tree import Element, add, element, shown

WIDTH: Final = 960
LEFT: Final = 220
"""Where bars begin: names are before."""
RIGHT: Final = 20
ROW: Final = 16
MAX_ROWS: Final = 200
HEIGHT: Final = 160
"""Of lines."""
STYLE: Final = """
text{font:11px system-ui,sans-serif;fill:var(--text)}
.axis{stroke:var(--edge);stroke-width:1}
.ok{fill:var(--ok)}.bad{fill:var(--bad)}.open{fill:var(--open)}
.line{fill:none;stroke:var(--ok);stroke-width:1.5}
"""
COLOURS: Final = """
:root{color-scheme:light dark;--paper:#fff;--text:#1c1e21;--soft:#5f6670;--edge:#d4d8de;
--ok:#2f6fb7;--bad:#c0392b;--open:#7f8c9a;--box:#f5f6f8}
@media (prefers-color-scheme:dark){:root{--paper:#15181c;--text:#e4e7eb;--soft:#9aa3ad;
--edge:#3a4048;--ok:#6ea8e6;--bad:#ef7a6d;--open:#8a949f;--box:#1e2227}}
"""


def duration(ns: float) -> str:
    """For a person."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def amount(value: float) -> str:
    """A number for a person: 1.5M."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def size(value: float) -> str:
    """Bytes for a person."""
    for unit, each in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(value) >= each:
            return f"{value / each:.3g} {unit}"
    return f"{value:.0f} B"


def _picture(height: int, title: str) -> Element:
    return element(
        "svg", element("title", title), viewBox=f"0 0 {WIDTH} {height}", width=WIDTH,
        height=height, role="img",
    )  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str = "start") -> Element:
    return element("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor)


def _axis(picture: Element, length_ns: int, bottom: int) -> None:
    add(picture, element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
    for part in range(5):
        x = LEFT + (WIDTH - RIGHT - LEFT) * part / 4
        anchor = "end" if part == 4 else "middle"
        add(picture, _text(x, bottom + 14, duration(length_ns * part / 4), anchor))


def _x(at_ns: int, length_ns: int) -> float:
    share = min(1.0, max(0.0, at_ns / max(1, length_ns)))
    return round(LEFT + (WIDTH - RIGHT - LEFT) * share, 1)


def timeline(summary: Summary) -> Element:
    """A bar for each process, from its beginning to its end; the longest, if there are many."""
    length_ns = summary.length_ns
    chosen = sorted(summary.processes, key=lambda each: each.began_ns - end_ns(each, length_ns))
    rows = sorted(chosen[:MAX_ROWS], key=lambda each: (each.began_ns, each.pid))
    bottom = ROW * max(1, len(rows)) + 6
    picture = _picture(bottom + 20, "Processes over time")
    for number, process in enumerate(rows):
        top = number * ROW + 2
        began, ended = _x(process.began_ns, length_ns), _x(end_ns(process, length_ns), length_ns)
        name = shown(f"{process.pid} {process.name}", 34)
        bar = element(
            "rect", element("title", said(process, length_ns)), x=began, y=top,
            width=round(max(1.5, ended - began), 1), height=ROW - 4, rx=2, class_=_class(process),
        )  # fmt: skip
        add(picture, _text(LEFT - 6, top + 10, name, "end"), bar)
    _axis(picture, length_ns, bottom)
    return picture


def end_ns(process: Process, length_ns: int) -> int:
    """Its end, or that of the recording."""
    return process.ended_ns if process.ended_ns >= 0 else length_ns


def _class(process: Process) -> str:
    if process.ended_ns < 0:
        return "open"
    return "bad" if process.status else "ok"


def ending(process: Process) -> str:
    """How it ended."""
    if process.ended_ns < 0:
        return "no end was recorded"
    status = process.status & 0xFFFF
    return f"signal {status & 0x7F}" if status & 0x7F else f"exit code {status >> 8}"


def said(process: Process, length_ns: int) -> str:
    """What is told of a process in a line."""
    words = process.programs[-1] if process.programs else process.name
    took = duration(end_ns(process, length_ns) - process.began_ns)
    return shown(f"{process.pid} {words}: {took}, {ending(process)}")


def curve(title: str, values: Sequence[tuple[int, float]], length_ns: int, unit: str) -> Element:
    """A line over time. `unit`: "bytes", or what stands behind numbers."""
    picture = _picture(HEIGHT + 24, title)
    top = max((value for _, value in values), default=0.0) or 1.0
    bottom = HEIGHT
    points = " ".join(
        f"{_x(at_ns, length_ns)},{round(bottom - 8 - (bottom - 20) * max(0.0, v) / top, 1)}"
        for at_ns, v in values
    )
    highest = size(top) if unit == "bytes" else f"{amount(top)} {unit}"
    add(picture, _text(LEFT - 6, 16, shown(highest, 34), "end"),
        _text(LEFT - 6, bottom - 4, "0", "end"))  # fmt: skip
    if points:
        add(picture, element("polyline", points=points, class_="line"))
    _axis(picture, length_ns, bottom)
    return picture


def activity(rate: Rate, length_ns: int) -> Element:
    """How many records a second there were."""
    return curve("Records a second", rate.values(), length_ns, "/s")


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> Element:
    """(name, length, what stands behind the bar), the longest first."""
    bottom = ROW * max(1, len(rows))
    picture = _picture(bottom + 4, title)
    most = max((length for _, length, _ in rows), default=0.0) or 1.0
    for number, (name, length, says) in enumerate(rows):
        top = number * ROW + 2
        width = round(max(1.0, (WIDTH - RIGHT - LEFT - 140) * max(0.0, length) / most), 1)
        add(picture, _text(LEFT - 6, top + 10, shown(name, 34), "end"),
            element("rect", x=LEFT, y=top, width=width, height=ROW - 4, rx=2, class_="ok"),
            _text(LEFT + width + 6, top + 10, shown(says, 40)))  # fmt: skip
    return picture


def alone(picture: Element) -> Element:
    """The same picture with its colours in it, for a file of its own."""
    picture.insert(0, element("style", COLOURS + STYLE))
    paper = element("rect", width="100%", height="100%", style="fill:var(--paper)")
    picture.insert(1, paper)
    return picture
