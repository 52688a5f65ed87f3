"""The screen of `runsc top`: sandboxes above, the processes of the chosen one below.

Needs textual. What comes from inside is shown as it is (`rich.text.Text`), never as textual's own
markup, and without control characters (`top_rows.harmless`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Footer

from runsc.commands import top_rows
from runsc.containers.measuring import Watch

ORDERS = ("name", "cpu", "memory", "calls")


class Screen(App[None]):
    """Looks each interval, and shows."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "#sandboxes {height: 1fr} #processes {height: 1fr; border-top: solid $primary}"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("s", "sort", "Sort by name, CPU, memory, calls"),
    ]

    def __init__(self, watch: Watch, interval_s: float) -> None:
        super().__init__()
        self._watch = watch
        self._interval_s = interval_s
        self._order = 0

    def compose(self) -> ComposeResult:
        """The two tables."""
        yield DataTable(id="sandboxes", cursor_type="row")
        yield DataTable(id="processes", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Begin."""
        self.title = "runsc top"
        self._table("sandboxes").add_columns(*_texts(top_rows.HEADS, top_rows.HEADS))
        heads = top_rows.PROCESS_HEADS
        self._table("processes").add_columns(*_texts(heads, heads))
        self.look()
        self.set_interval(self._interval_s, self.look)

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}", DataTable)

    def look(self) -> None:
        """Hear what has come, without waiting, and show it."""
        self._watch.look()
        self._watch.wait(0)
        found = sorted(self._watch.sandboxes.values(), key=lambda each: each.state.id)
        order = ORDERS[self._order]
        if order != "name":
            found.sort(key=lambda each: -float(getattr(each.figures, order)))
        chosen = self.chosen()
        table = self._table("sandboxes")
        table.clear()
        for watched in found:
            name, *cells = top_rows.row(watched)
            cells = [top_rows.short(name, self.size.width), *cells]
            table.add_row(*_texts(top_rows.HEADS, cells), key=name)
        if chosen in self._watch.sandboxes:
            table.move_cursor(row=table.get_row_index(chosen))
        self.show_processes()

    def chosen(self) -> str:
        """The sandbox that the cursor is on; "" if there is none."""
        table = self._table("sandboxes")
        if not table.row_count:
            return ""
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return key or ""

    def show_processes(self) -> None:
        """Of the chosen one."""
        table = self._table("processes")
        place = table.cursor_row
        table.clear()
        watched = self._watch.sandboxes.get(self.chosen())
        table.border_title = "no sandbox runs" if watched is None else watched.state.id
        if watched is not None:
            for cells in top_rows.processes(watched):
                table.add_row(*_texts(top_rows.PROCESS_HEADS, cells))
            table.move_cursor(row=min(place, max(0, table.row_count - 1)))

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Another one is chosen."""
        if event.data_table.id == "sandboxes":
            self.show_processes()

    def action_sort(self) -> None:
        """By the next of ORDERS."""
        self._order = (self._order + 1) % len(ORDERS)
        self.look()


def _texts(heads: Sequence[str], cells: Sequence[str]) -> list[Text]:
    """Words begin at the left, figures end at the right."""
    return [
        Text(cell, justify="left" if head in top_rows.WORDS else "right")
        for head, cell in zip(heads, cells, strict=True)
    ]
