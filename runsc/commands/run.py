"""runsc run: create and run a container."""

from __future__ import annotations

import os

import click

from runsc import convert, launch, spec
from runsc.container import check_id
from runsc.options import Globals


@click.command(help="Create and run the container CONTAINER-ID from a bundle.")
@click.option("--bundle", "-b", default=".", metavar="DIR", help="The bundle; default: here.")
@click.option("--pid-file", metavar="FILE", help="Where to write the pid of the sandbox.")
@click.argument("container-id")
@click.pass_obj
def command(flags: Globals, bundle: str, pid_file: str | None, container_id: str) -> None:
    """Decode the bundle, start it, wait for its end."""
    check_id(container_id)
    document = spec.load(bundle)
    bundle = os.path.realpath(bundle)
    container = convert.container(bundle, document, flags.overlay, flags.log.warning)
    identity = launch.Identity(
        container_id,
        bundle,
        container.exports[0].path,
        document.oci_version,
        document.annotations or {},
    )
    raise click.exceptions.Exit(launch.run(flags, identity, container, pid_file))
