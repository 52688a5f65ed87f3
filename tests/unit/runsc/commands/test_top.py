"""runsc top: its text, and its screen driven as by keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runsc.commands import top_rows
from runsc.containers.container import Store
from runsc.containers.measuring import Figures, Watch, Watched
from runsc.containers.state import State
from sentry.control.answers import ProcessInfo
from tests.unit.runsc.containers.states import running

NAME = "[red]x[/red]\x1b[2J\u202e\nz"


class _Known(Watched):
    """With processes that nobody was asked for."""

    known: list[ProcessInfo]

    @property
    def processes(self) -> list[ProcessInfo]:
        return self.known


class _Watch(Watch):
    """Of two sandboxes that say always the same."""

    def look(self) -> None:
        for name, calls, pid in (("one", 1.0, 11), ("two", 2500.0, 22)):
            made = _Known(State("1.2.0", name, "/", phase="running"))
            made.figures = Figures(3, 0.5, calls, 2.0, 5 << 20, 1 << 30, 7.0, 8.0, 1)
            made.is_measured = True
            made.known = [ProcessInfo(pid, 1, 0, NAME, "R\x1b", cpu_ns=2 * 10**9)]
            self.sandboxes[name] = made


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    made = _Watch(Store(str(tmp_path / "root")))
    made.look()
    return made


def test_text_has_a_line_for_each_sandbox_and_harmless_processes(watch: Watch) -> None:
    made = top_rows.lines(watch, with_processes=True)
    assert made[0].split() == " ".join(top_rows.HEADS).split()
    assert made[2].split() == ["two", "stopped", "3", "50.0", "2.5k", "2", "5", "MiB", "1", "GiB",
                               "7", "8", "1"]  # fmt: skip
    assert "[red]x[/red]?[2J??z" in "\n".join(made)
    assert all(line.isprintable() for line in made)


def test_long_names_leave_room_for_the_figures(watch: Watch) -> None:
    made = top_rows.lines(watch, with_processes=False)
    assert top_rows.short("f" * 64, 80) == "f" * 13 + "…"
    assert top_rows.short("f" * 64, 120) == "f" * 23 + "…"
    assert top_rows.short("f" * 64, 40) == "f" * 11 + "…"
    assert top_rows.short("web", 80) == "web"
    assert len(made[0]) - len("ID ") < top_rows.ALL_WIDTH


def test_figures_end_where_their_heads_do(watch: Watch) -> None:
    heads, *rows = top_rows.lines(watch, with_processes=False)
    end = heads.index("CALLS/s") + len("CALLS/s")
    assert [row[:end].rpartition(" ")[2] for row in rows] == ["1", "2.5k"]


def test_a_sandbox_that_says_nothing_has_dashes(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    running(store, "deaf")
    watch = Watch(store)
    watch.look()
    [_, line] = top_rows.lines(watch, with_processes=False)
    assert line.split() == ["deaf", "running", *["-"] * 9]


def test_the_screen_shows_processes_of_the_chosen_sandbox_as_they_are(watch: Watch) -> None:
    screen = pytest.importorskip("runsc.commands.top_screen", reason="textual is not installed")

    async def drive() -> None:
        app = screen.Screen(watch, 3600.0)
        async with app.run_test(size=(140, 40)) as pilot:
            await pilot.pause()
            sandboxes, processes = (app.query_one(f"#{n}") for n in ("sandboxes", "processes"))
            assert (sandboxes.row_count, processes.row_count) == (2, 1)
            assert app.chosen() == "one"
            assert processes.get_row_at(0)[0].plain == "11"
            command = processes.get_row_at(0)[-1]
            assert (command.plain, command.spans) == ("[red]x[/red]?[2J??z", [])
            await pilot.press("down")
            await pilot.pause()
            assert app.chosen() == "two"
            assert processes.get_row_at(0)[0].plain == "22"
            for _ in range(3):  # by the number of calls
                await pilot.press("s")
            await pilot.pause()
            assert sandboxes.get_row_at(0)[0].plain == "two"
            assert app.chosen() == "two"
            await pilot.press("q")

    asyncio.run(drive())
