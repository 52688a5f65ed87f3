"""`--file-access-mounts=exclusive`: which bind mounts are taken for the container's own.

Folders that may be written to, without what the host mounts below them later; and none of which the
root or another mount shows a part, or that is a part of what one shows: each has its own memory of
what is there, and hears of others, but not of the other one, which has the same Gofer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from runsc.launch.overlap import overlapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from runsc.oci.convert import Container
    from runsc.oci.exports import Export


def exclusive(container: Container, warn: Callable[[str], object]) -> Container:
    """The same with these."""
    exports, mounts = list(container.exports), list(container.mounts)
    for index, mount in enumerate(mounts):
        place = mount.attachment
        if place is None or not _may_be(container.exports[place]):
            continue
        path = container.exports[place].path
        others = [each.path for at, each in enumerate(exports) if at != place and each.path]
        shown = overlapping(path, others)
        if shown:
            warn(f"{path} is mounted as shared with others: it overlaps with {shown}")
            continue
        exports[place] = msgspec.structs.replace(exports[place], is_exclusive=True)
        mounts[index] = msgspec.structs.replace(mount, exclusive=True)
    return msgspec.structs.replace(container, exports=tuple(exports), mounts=tuple(mounts))


def _may_be(export: Export) -> bool:
    return export.writable and not (export.is_file or export.follows or export.overlay)
