"""A container that begins with a snapshot, in place of a program."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.boot.first_process import credentials, is_tty
from sentry.boot.tree import Starter, find, write_value
from sentry.config import ContainerConfig, StartError
from sentry.control.descriptors import close_all
from sentry.errors import EACCES, EPERM, EROFS, Errno
from sentry.fs.proc.sysctl import OF_NAMESPACE, narrows, values_of
from sentry.kernel import pause
from sentry.platform.memory import Exhausted
from sentry.state.loading import Loading
from sentry.state.pages import Damaged
from sentry.state.rights import Rights
from sentry.suppress import suppress
from sentry.vfs.location import Location

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel

Values = list[tuple[Location, str]]
"""Files below /proc/sys, and what is to be written to them."""


async def load(
    kernel: Kernel, config: ContainerConfig, container: Container
) -> Callable[[], None]:
    """All processes, which stand still; what lets them go on. Of the first container `stdio` are
    the caller's, those of a further one belong to it from now on.

    Raises: StartError; nothing is left then of a further one.
    """
    is_first = container is kernel.container
    container.pids.mortal = config.mortal_init
    wire = -1
    try:
        rights = Rights(config, credentials(config.process))
        loading = Loading(kernel, container, config, rights)
        wire = loading.wire
        try:
            starter = Starter(kernel, container)
            last = await _set_sysctls(starter, rights, loading.sysctls)
            await loading.load()
            await _write(starter, rights, last)
        except BaseException:
            if not is_first:  # who began with it ends
                await loading.abandon()
            raise
    except Damaged as error:
        raise StartError(f"cannot restore: {error}") from error
    except Exhausted as error:
        raise StartError("cannot restore: the memory limit is too low") from error
    except Errno as error:
        raise StartError(f"cannot restore: {error or type(error).__name__}") from error
    except OSError as error:
        raise StartError(f"cannot restore: {error.strerror}") from error
    finally:
        if not is_first:
            close_all({*config.stdio, *config.preserved} - _of_console(container, wire))
    for fd in {*config.stdio, *config.preserved} if is_first else ():
        if wire < 0 and not is_tty(fd):  # programs have others of the same
            os.close(fd)
    if container.console is not None:
        container.console.start()
    return partial(pause.resume, container)


def _of_console(container: Container, wire: int) -> set[int]:
    """It closes the terminal of the host itself."""
    return set() if container.console is None else {wire}


async def _set_sysctls(starter: Starter, rights: Rights, wanted: dict[str, str]) -> Values:
    """Those that some program of the container can have written: of others the bundle's stay.
    Gives those that narrow what may be made: they are for `_write`, when the rest is made.

    Raises: Damaged, Errno.
    """
    vfs = starter.kernel.vfs
    now: Values = []
    last: Values = []
    for name, value in wanted.items():
        if not all(part.strip(".") for part in name.split("/")):
            raise Damaged(f"{name!r} is no value below /proc/sys")
        whose = starter if name.startswith(OF_NAMESPACE) else starter.kernel
        if values_of(whose, name).get(name) == value and not narrows(starter, name, value):
            continue
        place = await find(starter, b"/proc/sys/" + name.encode())
        if place is None or place.inode.fs.name != "proc":
            raise Damaged(f"{name!r} is no value below /proc/sys")
        if rights.has(CAP_SYS_ADMIN):  # who has another mount of it
            place = Location(vfs.new_mount(place.inode.fs), place.dentry)
        (last if narrows(starter, name, value) else now).append((place, value))
    await _write(starter, rights, now)
    return last


async def _write(starter: Starter, rights: Rights, values: Values) -> None:
    """Values below /proc/sys, with the most rights that a program can have had. Raises: Errno."""
    before, starter.creds = starter.creds, rights.most
    for place, value in values:
        with suppress(EACCES, EPERM, EROFS):
            await write_value(starter, place, value)
    starter.creds = before
