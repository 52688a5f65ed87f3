"""What file systems of a container have in memory alone goes where others see it, or to a disk.

`pause` does the first: who looks at a container that stands still sees what its programs have done.
`runsc sync` does the second. `share` is asked by a sandbox that begins and has the same root, or
mounts a part of it: what is done from then on is there at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.control.outside import beside_init
from sentry.errors import Errno
from sentry.suppress import suppress
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.vfs.filesystem import FileSystem


def _mounted(container: Container) -> list[FileSystem]:
    """What its first process sees. Raises: ESRCH."""
    return list({id(mount.fs): mount.fs for mount in beside_init(container).mounts}.values())


async def settle(container: Container) -> None:
    """What does not work hinders nobody: the host may be dead."""
    with suppress(Errno):
        for fs in _mounted(container):
            with suppress(Errno):
                await again(fs.settle)


async def share(container: Container) -> None:
    """Its root is another sandbox's, too. Raises: EIO, EOPNOTSUPP."""
    if container.root is not None:
        await again(container.root.share)


async def sync(container: Container) -> None:
    """All of it, what is of no use to some of it included.

    Raises: ESRCH; what the first of them says, the host's refusals included that nobody has heard.
    """
    failed: Errno | None = None
    for fs in _mounted(container):
        hear = fs.listen()
        try:
            await again(fs.sync)
            hear()
        except Errno as error:
            failed = failed or error
    if failed is not None:
        raise failed
