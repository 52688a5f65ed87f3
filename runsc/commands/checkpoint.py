"""runsc checkpoint: the state of a running container goes into a folder."""

from __future__ import annotations

import click

from runsc import progress
from runsc.containers import snapshots
from runsc.options import Globals


@click.command(
    help="Write the state of the container CONTAINER-ID, which runs, into a folder: memory,"
    " processes, open files, and what it has written where that is in memory. `runsc restore` goes"
    " on from there. Then the container ends, unless --leave-running. What cannot be written is"
    " said by its name; then there is no snapshot, and the container goes on. See"
    " docs/snapshots.md."
    "\n\n\b\nExamples:\n"
    "  runsc checkpoint --image-path /srv/web.state web\n"
    "  runsc checkpoint --leave-running --image-path /srv/1 web"
)
@click.option(
    "--image-path",
    default="checkpoint",
    metavar="DIR",
    help="The folder; it is made, and must not have a snapshot. Default: ./checkpoint.",
)
@click.option("--leave-running", is_flag=True, help="The container goes on afterwards.")
@click.option(
    "--compression",
    type=click.Choice(("none", "zstd")),
    default="none",
    help="Of the pages of memory. Default: none.",
)
@click.option(
    "--parent",
    default="",
    metavar="DIR",
    help="The last snapshot of this container, or the one that it was restored from: what memory"
    " has had then already is not written again. The new one needs it to be there.",
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(
    flags: Globals, /, image_path: str, leave_running: bool, compression: str, parent: str,
    container_id: str,
) -> None:  # fmt: skip
    """See snapshots.write."""
    wish = snapshots.Wish(image_path, compression, leave_running, parent)
    with progress.shown() as tell:
        snapshots.write(flags.store(), container_id, wish, tell)
