"""Plots: what they show, in bounds."""

from __future__ import annotations

from runsc.report import plots
from runsc.report.tree import Element, html
from tests.unit.runsc.report.recordings import opened, run, summed


def _bars(picture: Element) -> list[Element]:
    return list(picture.iter("rect"))


def test_a_time_line_has_a_bar_for_each_process_by_its_end() -> None:
    picture = plots.timeline(summed(run()))
    assert [bar.get("class") for bar in _bars(picture)] == ["ok", "bad", "bad"]
    titles = [bar[0].text for bar in _bars(picture)]
    assert titles[1] == "2 cat /etc/none: 4 ms, exit code 1"
    assert titles[2] is not None
    assert titles[2].endswith("signal 9")


def test_of_many_processes_the_longest_are_drawn_within_the_picture() -> None:
    made = summed([*(opened(n, "/x", pid=n + 1) for n in range(500)), *run()])
    bars = _bars(plots.timeline(made))
    assert len(bars) == plots.MAX_ROWS
    for bar in bars:
        left, width = float(bar.get("x", "")), float(bar.get("width", ""))
        assert plots.LEFT <= left <= left + width <= plots.WIDTH - plots.RIGHT + 2


def test_curves_and_bars_take_any_numbers() -> None:
    values = [(0, -5.0), (1 << 70, 1e30), (-3, 0.0)]
    for picture in (plots.curve("c", values, 0, "bytes"), plots.bars("b", [("n", -1.0, "x")]),
                    plots.bars("b", []), plots.curve("c", [], 10, "/s")):  # fmt: skip
        assert b"nan" not in html(picture)


def test_numbers_are_for_persons() -> None:
    assert [plots.duration(ns) for ns in (5, 1500, 2e6, 3e9)] == ["5 ns", "1.5 µs", "2 ms", "3 s"]
    assert [plots.size(n) for n in (5, 2048, 3 << 30)] == ["5 B", "2 KiB", "3 GiB"]
    assert [plots.amount(n) for n in (5, 2_100_000)] == ["5", "2.1M"]
