"""A sandbox that begins with a snapshot, in place of a program."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sentry.boot.first_process import credentials, is_tty
from sentry.boot.tree import Starter, write_sysctl
from sentry.config import RestoreConfig, SandboxConfig, StartError
from sentry.errors import Errno
from sentry.kernel import pause
from sentry.platform.memory import Exhausted
from sentry.state.loading import Loading
from sentry.state.pages import Damaged
from sentry.state.rights import Rights

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel


async def load(
    kernel: Kernel, config: SandboxConfig, restore: RestoreConfig
) -> Callable[[], None]:
    """All processes, which stand still; what lets them go on. Raises: StartError."""
    process = config.process
    wire = config.stdio[0] if process.terminal and is_tty(config.stdio[0]) else -1
    kernel.pids.mortal = config.mortal_init
    try:
        starter = Starter(kernel)
        rights = Rights(config, credentials(process))
        loading = Loading(kernel, restore, config.stdio, rights, wire)
        for name, value in loading.sysctls.items():
            if not all(part.strip(".") for part in name.split("/")):
                raise Damaged(f"{name!r} is no value below /proc/sys")
            await write_sysctl(starter, name, value)
        await loading.load()
    except Damaged as error:
        raise StartError(f"cannot restore: {error}") from error
    except Exhausted as error:
        raise StartError("cannot restore: the memory limit is too low") from error
    except Errno as error:
        raise StartError(f"cannot restore: {error or type(error).__name__}") from error
    except OSError as error:
        raise StartError(f"cannot restore: {error.strerror}") from error
    for fd in {*config.stdio, *config.preserved}:
        if wire < 0 and not is_tty(fd):  # programs have others of the same
            os.close(fd)
    console = kernel.container.console
    if console is not None:
        console.start()
    return partial(pause.resume, kernel.container)
