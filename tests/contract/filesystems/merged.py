"""An overlay as a program mounts it, of which the upper layer is in memory."""

from __future__ import annotations

from sentry.auth.credentials import Credentials
from sentry.fs.layers.filesystem import LayersFs, layered
from sentry.fs.layers.options import parse
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.vfs.dentry import Dentry
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Owner
from sentry.vfs.location import Location
from sentry.vfs.vfs import Vfs
from sentry.wait.eager import eager

OPTIONS = "lowerdir=lower,upperdir=upper,workdir=work"


def merged(vfs: Vfs, lower: FileSystem | None = None, options: str = "") -> LayersFs:
    """Over a file system, or over an empty directory beside the upper one."""
    fs = TmpFs.make(vfs, "mode=0755")
    mount = vfs.new_mount(fs)

    def place(name: bytes) -> Location:
        inode = mount.root.inode.mkdir(name, 0o755, Owner(0, 0))
        return Location(mount, Dentry(mount.root, name, inode))

    below = place(b"lower") if lower is None else vfs.new_mount(lower).location
    above = [place(b"upper"), place(b"work")]
    given = parse(OPTIONS + options)
    made = eager(layered(vfs, Credentials.root(), given, above, [below]))
    assert isinstance(made, LayersFs)
    return made
