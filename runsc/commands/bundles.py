"""What `create` and `run` have in common: their flags, and a bundle that is understood."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
import msgspec

from runsc.containers.names import check_id
from runsc.launch import launch
from runsc.oci import convert, spec
from runsc.options import Globals

Command = Callable[..., None]

_OPTIONS = (
    click.option(
        "--bundle",
        "-b",
        default=".",
        metavar="DIR",
        help="The folder with config.json. Default: here.",
    ),
    click.option(
        "--console-socket",
        metavar="SOCKET",
        help="With process.terminal, for a container that is left alone: a Unix socket to which the"
        " other end of its terminal is sent.",
    ),
    click.option(
        "--pid-file",
        metavar="FILE",
        help="Gets the pid of a process of the host that lives as long as the container does.",
    ),
    click.option(
        "--preserve-fds",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Pass the open files 3 to 2+N to the program.",
    ),
    click.option("--no-pivot", is_flag=True, hidden=True),
    click.option("--no-new-keyring", is_flag=True, hidden=True),
)
"""The hidden ones are runc's: accepted where they mean nothing here."""


def flags(function: Command) -> Command:
    """The flags of both. Those without a meaning here do not reach the function."""

    def command(*args: Any, no_pivot: bool, no_new_keyring: bool, **named: Any) -> None:
        function(*args, **named)

    made: Command = command
    for option in reversed(_OPTIONS):
        made = option(made)
    made.__click_params__ += getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    return made


def understood(
    settings: Globals, bundle: str, container_id: str
) -> tuple[launch.Identity, convert.Container]:
    """Read the bundle. Raises: RuntimeFailure."""
    check_id(container_id)
    document = spec.load(bundle)
    bundle = os.path.realpath(bundle)
    if settings.debug:
        from runsc.oci import ignored  # noqa: PLC0415

        for line in ignored.fields(bundle):
            settings.log.debug(line)
    container = convert.container(bundle, document, settings.overlay, settings.log.warning)
    if settings.host_uds == "none":
        shut = (msgspec.structs.replace(each, connects=False) for each in container.exports)
        container = msgspec.structs.replace(container, exports=tuple(shut))
    if settings.host_fifo == "none":
        shut = (msgspec.structs.replace(each, opens=False) for each in container.exports)
        container = msgspec.structs.replace(container, exports=tuple(shut))
    identity = launch.Identity(
        container_id,
        bundle,
        container.exports[0].path,
        document.oci_version,
        document.annotations or {},
    )
    return identity, container
