"""`Stack`: the layers of an overlay, and what their files mean in it.

Nothing here knows the merged tree. Whoever has mounted the overlay looks at the layers, and changes
the upper one, whichever program asks for it: ovl_override_creds().
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.limits import NAME_MAX, PATH_MAX
from sentry.abi.stat import S_IFCHR
from sentry.abi.xattr import XATTR_NAME_MAX
from sentry.auth.permissions import MAY_EXEC
from sentry.auth.userns import NO_ID
from sentry.errors import EINVAL, EIO, ELOOP, ENODATA, EOPNOTSUPP, EPERM
from sentry.fs.layers.origin import read_handle, uuid_of
from sentry.vfs.access import check_inode
from sentry.vfs.dentry import Dentry
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Absent, Inode
from sentry.vfs.location import Location, UnheardLocation
from sentry.vfs.walk import child_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.auth.credentials import Credentials
    from sentry.fs.layers.options import Options
    from sentry.vfs.mount import Mount

UPPER: Final = 0
"""The number of the upper layer; lower ones have those from 1 on, the topmost first."""
LOCAL_INOS: Final = 1 << 62
"""Numbers from there on are of directories that need one of their own."""
XINO_SHIFT: Final = 54
"""With xino: where the number of the layer's file system begins in an inode's."""
OPAQUE: Final = b"opaque"
REDIRECT: Final = b"redirect"
ORIGIN: Final = b"origin"
UUID: Final = b"uuid"
WHITEOUT: Final = b"whiteout"
ESCAPE: Final = b"overlay."
MAX_REDIRECT: Final = 256
"""ovl_redirect_max_def."""
Lowers = tuple[tuple[int, Inode], ...]
"""Files of lower layers, with the numbers of these: of a directory those that are merged."""
Origin = tuple[FileSystem, int]
"""A file system of a layer, and an inode number there."""


class Layer(NamedTuple):
    """A directory of a mount, with all below it that lies on the same file system."""

    mount: Mount
    root: Inode


def is_whiteout(inode: Inode) -> bool:
    """It says that there is no such name: ovl_is_whiteout()."""
    return inode.kind == S_IFCHR and not inode.rdev


class Stack:
    """The layers, from the upper one (if there is one) down."""

    def __init__(self, options: Options, creds: Credentials, new_dev: Callable[[], int]) -> None:
        self.creds = creds
        """Of who has mounted it."""
        self.prefix = options.prefix
        self.redirects = options.redirect == "on"
        """Directories of lower layers can be renamed."""
        self.follows = options.redirect != "nofollow"
        self.xino = options.xino == "on"
        self.lowers_may_change = not self.redirects and not self.xino
        """While the overlay is not mounted: ovl_allow_offline_changes()."""
        self.volatile = options.volatile
        self.layers: dict[int, Layer] = {}
        self.work: Inode | None = None
        """Of the upper layer: where names are that are in no directory of the overlay."""
        self.whiteout: Inode | None = None
        """It gets the names of all whiteouts."""
        self.marks = False
        """The upper layer takes the extended attributes that are needed."""
        self.uuid = b""
        """Of the overlay, if it has one."""
        self._new_dev = new_dev
        self._systems: dict[FileSystem, tuple[int, int]] = {}
        """The file systems of the layers: a number, and st_dev of files if these tell it."""
        self._roots: set[Inode] = set()
        self.next_ino = LOCAL_INOS
        """Of the next directory that needs one of its own."""

    def add(self, number: int, layer: Layer) -> None:
        """One more. Raises: ELOOP, it is there already."""
        self.trap(layer.root)
        self.layers[number] = layer
        if layer.root.fs not in self._systems:
            self._systems[layer.root.fs] = len(self._systems), self._new_dev()

    @property
    def same_fs(self) -> bool:
        """All layers lie on one file system."""
        return len(self._systems) == 1

    def trap(self, root: Inode) -> None:
        """It is not to be found below another one: ovl_setup_trap(). Raises: ELOOP."""
        if root in self._roots:
            raise ELOOP("a directory that is two layers")
        self._roots.add(root)

    def place(self, number: int, inode: Inode) -> Location:
        """Where a file of a layer can be opened; nobody who watches the layer hears of it."""
        return UnheardLocation(self.layers[number].mount, Dentry(None, b"", inode))

    @property
    def devices(self) -> list[int]:
        """st_dev of files of each file system of the layers."""
        return [dev for _, dev in self._systems.values()]

    @property
    def others(self) -> list[Inode]:
        """What is not to be found in a layer, and is none itself."""
        layers = {layer.root for layer in self.layers.values()}
        return [root for root in self._roots if root not in layers]

    # --- looking

    def check(self, inode: Inode, mask: int) -> None:
        """Whoever has mounted it may do that with a file of a layer. Raises: EACCES, NotNow."""
        check_inode(self.creds, inode, mask)

    def look(self, directory: Inode, name: bytes) -> Inode | Absent:
        """A name of a layer's directory. Raises: EACCES, ELOOP, NotNow."""
        self.check(directory, MAY_EXEC)
        found = child_of(directory, name)
        if not isinstance(found, Absent) and found in self._roots:
            raise ELOOP("a layer in a layer")
        return found

    def is_own(self, name: bytes) -> bool:
        """An extended attribute that says something of layers: ovl_is_private_xattr()."""
        return name.startswith(self.prefix) and not name.startswith(self.prefix + ESCAPE)

    def stored(self, name: bytes) -> bytes:
        """How an extended attribute is called in the layers: those of an overlay that lies in this
        one are not this one's. ovl_xattr_escape_name(). Raises: EOPNOTSUPP."""
        if not name.startswith(self.prefix):
            return name
        found = self.prefix + ESCAPE + name[len(self.prefix) :]
        if len(found) > XATTR_NAME_MAX:
            raise EOPNOTSUPP("a long name")
        return found

    def told(self, name: bytes) -> bytes:
        """How it is called in the overlay."""
        inner = self.prefix + ESCAPE
        return self.prefix + name[len(inner) :] if name.startswith(inner) else name

    def _told(self, inode: Inode, name: bytes) -> bytes | None:
        """One of the overlay's attributes. trusted.* is there for the sandbox's root alone."""
        if not self.may_mark(self.prefix):
            return None
        try:
            return inode.getxattr(self.prefix + name)
        except (ENODATA, EOPNOTSUPP, EPERM):
            return None

    def _mark(self, inode: Inode, name: bytes) -> bytes:
        return self._told(inode, name) or b""

    def may_mark_names(self, directory: Inode) -> bool:
        """A directory of a lower layer in which an empty file may be a whiteout. Raises: NotNow."""
        return self._mark(directory, OPAQUE) == b"x"

    def hides(self, directory: Inode, inode: Inode) -> bool:
        """A file of a lower layer that says that there is no such name: a device, or an empty file
        with an attribute, ovl_path_check_xwhiteout_xattr(). Raises: NotNow."""
        if not inode.is_regular:
            return is_whiteout(inode)
        known = inode.known_attributes() or inode.stat()
        if known.size or self._told(inode, WHITEOUT) is None:
            return False
        return self.may_mark_names(directory)

    def is_opaque(self, directory: Inode) -> bool:
        """What is below it in other layers is hidden. Raises: NotNow."""
        return self._mark(directory, OPAQUE) == b"y"

    def uuid_of_upper(self) -> bytes:
        """The UUID that the upper layer tells."""
        return self._mark(self.layers[UPPER].root, UUID)

    def redirect(self, directory: Inode) -> bytes:
        """Where other layers have what belongs to it, if it is elsewhere: a name, or a path from
        the top. Raises: EINVAL, EPERM where none is followed, NotNow."""
        found = self._mark(directory, REDIRECT)
        if not found:
            return b""
        parts = found[1:].split(b"/") if found[:1] == b"/" else [found]
        bad = any(part in (b"", b".", b"..") or len(part) > NAME_MAX for part in parts)
        if bad or len(found) > PATH_MAX or (len(parts) == 1 and b"/" in parts[0]):
            raise EINVAL(f"the redirect {found[:300]!r}")
        if not self.follows:
            raise EPERM("a redirect is not followed")
        return found

    # --- marks of the upper layer

    def mark(self, directory: Inode, name: bytes, value: bytes) -> None:
        """Set `opaque` or `redirect`. Raises: EIO where it takes none, NotNow."""
        if not self.marks:
            raise EIO("the upper layer takes no such extended attributes")
        directory.setxattr(self.prefix + name, value, 0)

    def new_name(self) -> bytes:
        """For something in `work`."""
        return b"#" + os.urandom(8).hex().encode()

    def may_copy(self, uid: int, gid: int) -> bool:
        """The owner can be written down: ovl_copy_up_flags()."""
        ns = self.creds.user_ns
        if ns is None:
            return True
        return NO_ID not in (ns.uid_map.from_kernel(uid), ns.gid_map.from_kernel(gid))

    @property
    def is_root(self) -> bool:
        """Who has mounted it may do in the sandbox's first user namespace what root may."""
        return self.creds.has(CAP_SYS_ADMIN)

    def may_mark(self, name: bytes) -> bool:
        """Whether whoever has mounted it may set this extended attribute."""
        return self.is_root or not name.startswith((b"trusted.", b"security."))

    # --- numbers

    def number(self, fs: FileSystem, ino: int, *, is_dir: bool) -> tuple[int, int | None]:
        """st_ino of a layer's file, and st_dev if it is not the overlay's: ovl_map_dev_ino()."""
        system, dev = self._systems[fs]
        if self.same_fs:
            return ino, None
        if self.xino and ino < 1 << XINO_SHIFT:
            return ino | system << XINO_SHIFT, None
        if is_dir:
            self.next_ino += 1
            return self.next_ino - 1, None
        return ino, dev

    def listed(self, fs: FileSystem, ino: int) -> int:
        """d_ino of a name of a layer's file."""
        if self.xino and not self.same_fs and ino < 1 << XINO_SHIFT:
            return ino | self._systems[fs][0] << XINO_SHIFT
        return ino

    def origin(self, inode: Inode) -> Origin | None:
        """What a file of the upper layer is a copy of, as it says. Raises: NotNow."""
        told = read_handle(self._mark(inode, ORIGIN))
        found = [fs for fs in self._systems if told is not None and uuid_of(fs) == told[0]]
        return (found[0], told[1]) if told is not None and len(found) == 1 else None
