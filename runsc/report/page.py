"""The page: sections of plots and tables, in one file without scripts, that loads nothing."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import Final

from runsc.report import plots
from runsc.report.plots import amount, duration, size
from runsc.report.summary import Spent, Summary, Tally
from runsc.report.tree import Element, add, element, shown

MAX_ROWS: Final = 300
"""Of one table: with MAX_SHOWN characters a cell the page is bounded."""
MAX_BARS: Final = 25
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load for it, and run: nothing."""
STYLE: Final = """
body{margin:0 auto;max-width:1000px;padding:16px;font:14px/1.45 system-ui,sans-serif;
background:var(--paper);color:var(--text)}
h1{font-size:22px;margin:8px 0}h2{font-size:17px;margin:28px 0 8px}
.soft{color:var(--soft)}svg{max-width:100%;height:auto}
dl{display:flex;flex-wrap:wrap;gap:8px;margin:12px 0}
dl div{background:var(--box);border:1px solid var(--edge);border-radius:6px;padding:6px 12px}
dt{color:var(--soft);font-size:12px}dd{margin:0;font-size:16px}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:left;padding:3px 10px 3px 0;border-bottom:1px solid var(--edge);
overflow-wrap:anywhere;vertical-align:top}
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right;white-space:nowrap}
"""


def page(summary: Summary, title: str) -> Element:
    """Of a run."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width"),
        element("title", f"Report: {shown(title)}"),
        element("style", plots.COLOURS + plots.STYLE + STYLE),
    )
    body = element("body", element("h1", shown(title)), _facts(summary), *_notes(summary))
    for name, make in SECTIONS.items():
        parts = make(summary)
        if parts:
            add(body, element("section", element("h2", name), *parts, id=name.lower()))
    return element("html", head, body, lang="en")


def _facts(summary: Summary) -> Element:
    facts = {
        "Begun": _clock(summary.first_ns),
        "Length": duration(summary.length_ns),
        "Records": amount(summary.records),
        "Processes": _number(summary, "processes", len(summary.processes)),
        "Files opened": _number(summary, "files", len(summary.files)),
        "Connections": _number(summary, "connections", len(summary.connections)),
    }
    if summary.measured_ns:
        facts["CPU time of programs"] = duration(summary.guest_ns)
    memory = [value for level in _levels(summary, "memory_bytes") for _, value in level[1]]
    if memory:
        facts["Memory at most"] = size(max(memory))
    made = (element("div", element("dt", k), element("dd", v)) for k, v in facts.items())
    return element("dl", *made)


def _number(summary: Summary, kind: str, kept: int) -> str:
    """Of those that are not kept it is known how often they were met, not how many they are."""
    return f"more than {amount(kept)}" if kind in summary.more else amount(kept)


def _notes(summary: Summary) -> list[Element]:
    said = [f"{shown(name)}: {shown(words)}" for name, words in summary.containers.items()]
    if summary.lost:
        said.append(f"{summary.lost} records were lost: nobody had room for them.")
    if summary.unknown:
        said.append(f"{summary.unknown} records are of kinds that this version does not know.")
    if summary.problem:
        said.append(f"The recording was not read to its end: {shown(summary.problem)}.")
    said += [f"{count} times more {kind} were met, which are not kept."
             for kind, count in summary.more.items()]  # fmt: skip
    return [element("p", text, class_="soft") for text in said]


def _processes(summary: Summary) -> list[Element]:
    if not summary.processes:
        return []
    rows = [
        (str(each.pid), str(each.parent or ""), " → ".join(each.programs) or each.name,
         duration(each.began_ns), duration(plots.end_ns(each, summary.length_ns) - each.began_ns),
         plots.ending(each))
        for each in summary.processes
    ]  # fmt: skip
    more = len(summary.processes) - plots.MAX_ROWS
    said = [element("p", f"The longest {plots.MAX_ROWS}.", class_="soft")] if more > 0 else []
    heads = ("pid", "parent", "program", "began", "took", "end")
    return [plots.timeline(summary), *said, _table(heads, rows, "nn nn")]


def _activity(summary: Summary) -> list[Element]:
    return [plots.activity(summary.rate, summary.length_ns)] if summary.records else []


def _cost(summary: Summary) -> list[Element]:
    if not summary.costs:
        return []
    found = _by_cost(summary)
    rows = [
        (name, str(spent.count), duration(spent.total_ns),
         duration(spent.total_ns / max(1, spent.count)), duration(spent.longest_ns))
        for name, spent in found
    ]  # fmt: skip
    length = duration(summary.measured_ns)
    measured = f"All calls that came to the kernel in {length}, and the time it took for them."
    return [element("p", measured, class_="soft"), _cost_picture(summary),
            _table(("call", "count", "total", "mean", "longest"), rows, " nnnn")]  # fmt: skip


def _by_cost(summary: Summary) -> list[tuple[str, Spent]]:
    return sorted(summary.costs.items(), key=lambda each: -each[1].total_ns)


def _cost_picture(summary: Summary) -> Element:
    return plots.bars("System calls by what they cost", [
        (name, spent.total_ns, f"{duration(spent.total_ns)} for {amount(spent.count)}")
        for name, spent in _by_cost(summary)[:MAX_BARS]
    ])  # fmt: skip


def _by_number(summary: Summary) -> list[tuple[str, Tally]]:
    return sorted(summary.calls.items(), key=lambda each: -each[1].count)


def _calls_picture(summary: Summary) -> Element:
    found = _by_number(summary)[:MAX_BARS]
    rows = [(name, tally.count, amount(tally.count)) for name, tally in found]
    return plots.bars("System calls by number", rows)


def _calls(summary: Summary) -> list[Element]:
    if not summary.calls:
        return []
    rows = [(n, str(t.count), str(t.failed or ""), _errors(t)) for n, t in _by_number(summary)]
    return [element("p", "Those that the session has listened to.", class_="soft"),
            _calls_picture(summary),
            _table(("call", "count", "failed", "errors"), rows, " nn")]  # fmt: skip


def _errors(tally: Tally) -> str:
    found = sorted(tally.errnos.items(), key=lambda each: -each[1])
    return ", ".join(f"{errno.errorcode.get(n, n)} {count}" for n, count in found[:8])


def _files(summary: Summary) -> list[Element]:
    found = sorted(
        summary.files.items(),
        key=lambda each: (-each[1].written, -each[1].read - each[1].failed, each[0]),
    )
    rows = [(path, str(f.read or ""), str(f.written or ""), str(f.failed or ""), f.program)
            for path, f in found]  # fmt: skip
    heads = ("path", "read", "written", "failed", "first by")
    return [_table(heads, rows, " nnn")] if rows else []


def _connections(summary: Summary) -> list[Element]:
    found = sorted(summary.connections.items(), key=lambda each: -each[1].count)
    rows = [
        (way, peer, program, str(tally.count), str(tally.failed or ""), _errors(tally))
        for (way, peer, program), tally in found
    ]
    heads = ("", "address", "program", "count", "failed", "errors")
    return [_table(heads, rows, "   nn")] if rows else []


def _levels(summary: Summary, name: str) -> list[tuple[str, list[tuple[int, float]]]]:
    return [
        (key.removeprefix(name), level.values)
        for key, level in summary.levels.items()
        if key.partition("{")[0] == name
    ]


def _memory(summary: Summary) -> list[Element]:
    found = _levels(summary, "memory_bytes")
    return [
        plots.curve(f"Memory {shown(which)}", values, summary.length_ns, "bytes")
        for which, values in found
    ]


def _figures(summary: Summary) -> list[Element]:
    rows = [(name, str(value)) for name, value in summary.latest.items() if value]
    return [_table(("figure", "at the end"), rows, " n")] if rows else []


def _decisions(summary: Summary) -> list[Element]:
    rows = [(duration(each.at_ns), each.point, each.who, each.what) for each in summary.decisions]
    return [_table(("at", "what", "who", ""), rows, "n")] if rows else []


SECTIONS: Final[dict[str, Callable[[Summary], list[Element]]]] = {
    "Processes": _processes,
    "Decisions": _decisions,
    "Activity": _activity,
    "Cost": _cost,
    "Calls": _calls,
    "Files": _files,
    "Connections": _connections,
    "Memory": _memory,
    "Figures": _figures,
}
"""By heading; one with nothing to show is left out."""
PICTURES: Final = {
    "timeline": "Processes", "activity": "Activity", "cost": "Cost", "calls": "Calls",
    "memory": "Memory",
}  # fmt: skip
"""By name: the section whose first picture it is."""


def picture(summary: Summary, name: str) -> Element | None:
    """One of PICTURES by itself; None if there is nothing to draw."""
    drawn = [each for each in SECTIONS[PICTURES[name]](summary) if each.tag == "svg"]
    return plots.alone(drawn[0]) if drawn else None


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], marks: str) -> Element:
    """`marks`: n for a column of numbers."""
    kinds = ["n" if mark == "n" else "" for mark in marks.ljust(len(heads))]
    made = element("tbody")
    for row in rows[:MAX_ROWS]:
        cells = (_cell("td", text, kind) for text, kind in zip(row, kinds, strict=True))
        add(made, element("tr", *cells))
    if len(rows) > MAX_ROWS:
        rest = f"{len(rows) - MAX_ROWS} more"
        add(made, element("tr", element("td", rest, colspan=len(heads), class_="soft")))
    head = element("tr", *(_cell("th", t, kind) for t, kind in zip(heads, kinds, strict=True)))
    return element("table", element("thead", head), made)


def _cell(tag: str, text: str, kind: str) -> Element:
    return element(tag, shown(text), class_=kind) if kind else element(tag, shown(text))


def _clock(at_ns: int) -> str:
    seconds = at_ns // 10**9
    if not 0 < seconds < 1 << 34:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
