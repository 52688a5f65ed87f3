"""runsc snapshot inspect: what is in a snapshot."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from typing import TYPE_CHECKING

import click
import msgspec

from runsc.containers import snapshots
from runsc.errors import RuntimeFailure
from runsc.log import printable, printable_json

if TYPE_CHECKING:
    from sentry.state.records import Snapshot, Tree

KINDS = {"named": "by name", "donated": "of who started it"}
"""Of open files, which are not called as what they are elsewhere."""
MAX_WIDTH = 500


@click.group(help="Look at snapshots that `runsc checkpoint` has written."
    "\n\n\b\nExample:\n"
    "  runsc snapshot inspect /srv/web.state")
def command() -> None:
    """See `inspect`."""


@command.command(
    short_help="Show what is in a snapshot.",
    help="Show what is in the snapshot in the folder DIR: when and of what it was made, its"
    " processes, and how many there are of other things. With --objects all that is written of"
    " them, as JSON.",
)
@click.option("--objects", is_flag=True, help="The records of all objects, as JSON.")
@click.argument("folder", metavar="DIR")
def inspect(objects: bool, folder: str) -> None:
    """Nothing of it is run."""
    found = snapshots.objects(folder)
    if objects:
        click.echo(printable_json(msgspec.json.format(msgspec.json.encode(found))))
        return
    manifest = snapshots.read(folder)
    lines = [
        f"container    {manifest.container}",
        f"made         {manifest.made_at} by runsc {manifest.program}, format {manifest.version}",
        f"platform     {manifest.platform}",
        f"memory       {manifest.pages * 4} KiB, compression {manifest.compression}",
        *([] if manifest.parent is None else
          [f"builds on    {manifest.parent.path}, own memory {manifest.own * 4} KiB"]),
        f"host name    {found.hostname.decode(errors='replace')}",
    ]
    for process in found.processes:
        state = "" if any(not each.dead for each in process.threads) else " (ended)"
        words = b" ".join(process.argv).decode(errors="replace") or "?"
        lines.append(f"process      {process.pid}{state} {words}")
    kinds = Counter(str(msgspec.to_builtins(each)["kind"]) for each in found.files)
    lines += [
        f"open files   {count} {KINDS.get(kind, kind)}" for kind, count in sorted(kinds.items())
    ]
    for tree in found.trees:
        kind, where = _mounted(found, tree)
        count, what = len(tree.entries), "kept"
        if tree.differences:
            count, what = len(tree.differences), "that differ from what is below"
        if tree.overlay is not None:
            count, what = len(tree.overlay.files), "that somebody has"
        if tree.image is None:
            lines.append(f"files        {count} {what}, of the {kind} on {where}")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else MAX_WIDTH
    click.echo("\n".join(_line(each, width) for each in lines))


def _mounted(found: Snapshot, tree: Tree) -> tuple[str, str]:
    """The type of its file system, and where that is. Raises: RuntimeFailure."""
    first, table = found.mounts, found.mount_table
    if tree.fs is None and tree.mount < len(first):
        mount = first[tree.mount]
        return mount.kind, f"…/{mount.path.decode(errors='replace')}" if mount.path else "/"
    place, where = tree.fs, "no place any more"
    if place is None and tree.mount < len(first) + len(table.mounts):
        made = table.mounts[tree.mount - len(first)]
        place, where = made.fs, f"…/{made.place.decode(errors='replace')}"
    if place is None or place >= len(table.file_systems):
        raise RuntimeFailure(f"damaged: files of mount {tree.mount}, which is none")
    return table.file_systems[place].kind, where


def _line(text: str, width: int) -> str:
    """That moves no terminal: much of it comes from inside."""
    text = printable(text).replace("\n", "?").replace("\t", " ")
    return text if len(text) <= width else f"{text[: width - 1]}…"
