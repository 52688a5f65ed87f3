"""runsc snapshot inspect: what is in a snapshot."""

from __future__ import annotations

import sys
from collections import Counter

import click
import msgspec

from runsc.containers import snapshots


@click.group(help="Look at snapshots that `runsc checkpoint` has written."
    "\n\n\b\nExample:\n"
    "  runsc snapshot inspect /srv/web.state")
def command() -> None:
    """See `inspect`."""


@command.command(
    help="Show what is in the snapshot in the folder DIR: when and of what it was made, its"
    " processes, and how many there are of other things. With --objects all that is written of"
    " them, as JSON."
)
@click.option("--objects", is_flag=True, help="The records of all objects, as JSON.")
@click.argument("folder", metavar="DIR")
def inspect(objects: bool, folder: str) -> None:
    """Nothing of it is run."""
    found = snapshots.objects(folder)
    if objects:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        return
    manifest = snapshots.read(folder)
    lines = [
        f"container    {manifest.container}",
        f"made         {manifest.made_at} by runsc {manifest.program}, version {manifest.version}",
        f"platform     {manifest.platform}",
        f"memory       {manifest.pages * 4} KiB, compression {manifest.compression}",
        *([] if manifest.parent is None else
          [f"builds on    {manifest.parent.path}, own memory {manifest.own * 4} KiB"]),
        f"host name    {found.hostname.decode(errors='replace')}",
    ]
    for process in found.processes:
        state = "" if any(not each.dead for each in process.threads) else " (ended)"
        words = b" ".join(process.argv).decode(errors="replace")[:60] or "?"
        lines.append(f"process      {process.pid}{state} {words}")
    kinds = Counter(str(msgspec.to_builtins(each)["kind"]) for each in found.files)
    lines += [f"open files   {count} {kind}" for kind, count in sorted(kinds.items())]
    for tree in found.trees:
        count = len(tree.entries) or len(tree.differences)
        lines.append(f"tree         {count} files on mount {tree.mount}")
    click.echo("\n".join(lines))
