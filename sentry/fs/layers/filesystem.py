"""`LayersFs`: an overlay that a program has mounted. fs/overlayfs/super.c."""

from __future__ import annotations

from _weakref import ref
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.mount import MS_NOATIME
from sentry.abi.stat import OVERLAYFS_SUPER_MAGIC
from sentry.errors import EINVAL, ELOOP, EROFS
from sentry.fs.layers import options as given
from sentry.fs.layers.directory import LayeredDirectory
from sentry.fs.layers.inode import LayeredInode
from sentry.fs.layers.search import Found
from sentry.fs.layers.stack import UPPER, Layer, Stack
from sentry.fs.layers.work import prepare
from sentry.vfs import unmounting
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Inode, StatFs
from sentry.vfs.mounting import hides_below
from sentry.vfs.walk import resolve
from sentry.wait.again import again, begun
from sentry.wait.steps import Pace, at_once, driven

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sentry.auth.credentials import Credentials
    from sentry.fs.layers.options import Options
    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs

MAX_DEPTH: Final = 2
"""Overlays, and images, over one another: FILESYSTEM_MAX_STACK_DEPTH."""
LAYERS: Final = frozenset({"9p", "devtmpfs", "erofs", "fuse", "overlay", "ramfs", "tmpfs"})
"""Types that can be a layer: what is in their files depends on nobody who looks. The server of a
fuse is told who asks, but for what it forbids, which the overlay does for it."""
UPPERS: Final = frozenset({"devtmpfs", "overlay", "ramfs", "tmpfs"})
"""Types that can be the upper one: they are in memory. This overlay is none of them, the sandbox's
own layer is."""


def mount_overlay(caller: Caller, source: bytes, flags: int, data: bytes) -> LayersFs:
    """mount(2) of type overlay: ovl_fill_super(). Raises: EINVAL, ELOOP, NotNow."""
    options = given.parse(data.decode("utf-8", "surrogateescape"))
    return begun((mount_overlay, data), lambda: _mounted(caller, source, options))


async def _mounted(caller: Caller, source: bytes, options: Options) -> LayersFs:
    paths = [options.upper, options.work] if options.upper else []
    above = [await _layer(caller, path) for path in paths]
    lowers: list[Location] = []
    pace = Pace()
    for path in options.lowers:
        lowers.append(await _layer(caller, path))
        await pace.rest()
    fs = await layered(caller.kernel.vfs, caller.creds, options, above, lowers)
    fs.source = source.decode(errors="replace") or "none"
    return fs


async def layered(
    vfs: Vfs, creds: Credentials, options: Options, above: list[Location], lowers: list[Location]
) -> LayersFs:
    """An overlay of places: `above` are those of the upper layer and of its work, or none. Layers
    count as mounts. Raises: EINVAL, ELOOP, ENOSPC."""
    vfs.budget.check_mounts(len(lowers) + len(above))
    stack = Stack(options, creds, vfs.new_dev)
    if above:
        _check_upper(*above)
        stack.add(UPPER, _as_layer(vfs, above[0]))
        stack.trap(above[1].inode)
    merged = lowers[: len(lowers) - options.data_only]
    for number, lower in enumerate(merged, 1):
        stack.add(number, _as_layer(vfs, lower))
    for lower in lowers[len(merged) :]:
        stack.trap(lower.inode)
    depth = depth_over(place.inode.fs for place in [*above, *lowers])
    _check_apart(lowers, [*above, *lowers])
    if above:
        await prepare(stack, above[1].inode, options)
    return LayersFs(vfs, stack, options, depth)


async def _layer(caller: Caller, path: str) -> Location:
    """ovl_mount_dir(), clone_private_mount(). Raises: EINVAL for what cannot be a layer."""
    place = await again(resolve, caller, AT_FDCWD, path.encode("utf-8", "surrogateescape"))
    mount, dentry = place
    if caller.judge is not None:
        await again(caller.judge.layered, mount, dentry)
    if not dentry.inode.is_dir:
        raise EINVAL("not a directory")
    if mount.namespace is None:
        raise EINVAL("not mounted any more")
    if mount.fs.name.partition(".")[0] not in LAYERS or dentry.inode.fs is not mount.fs:
        raise EINVAL(f"{mount.fs.name} as a layer")
    if mount.unbindable or await driven(hides_below(mount, dentry)):
        raise EINVAL("it would show what mounts hide")
    return place


def depth_over(layers: Iterable[FileSystem]) -> int:
    """How many lie below, with the overlay itself. Raises: EINVAL, too many."""
    depth = 1 + max(fs.stack_depth for fs in layers)
    if depth > MAX_DEPTH:
        raise EINVAL("an overlay over an overlay over an overlay")
    return depth


def _as_layer(vfs: Vfs, place: Location) -> Layer:
    return Layer(vfs.new_mount(place.inode.fs, MS_NOATIME, place.dentry), place.inode)


def _check_upper(upper: Location, work: Location) -> None:
    """ovl_get_upper(), ovl_get_workdir(). Raises: EINVAL."""
    if upper.mount is not work.mount:
        raise EINVAL("workdir and upperdir must reside under the same mount")
    if upper.dentry.is_below(work.dentry) or work.dentry.is_below(upper.dentry):
        raise EINVAL("workdir and upperdir must be separate subtrees")
    if isinstance(upper.inode.fs, LayersFs) or upper.mount.fs.name not in UPPERS:
        raise EINVAL(f"{upper.mount.fs.name} as the upper layer")
    if upper.mount.read_only:
        raise EINVAL("the upper layer is read-only")


def _check_apart(lowers: list[Location], all_of_them: list[Location]) -> None:
    """No lower layer lies in another layer: ovl_check_overlapping_layers(). Raises: ELOOP."""
    places = {id(place.dentry) for place in all_of_them}
    seen: set[int] = set()
    for lower in lowers:
        at = lower.dentry.parent
        while at is not None and id(at) not in seen:
            if id(at) in places:
                raise ELOOP("overlapping lowerdir path")
            seen.add(id(at))
            at = at.parent


class LayersFs(FileSystem):
    """One overlay."""

    name = "overlay"
    magic = OVERLAYFS_SUPER_MAGIC

    def __init__(self, vfs: Vfs, stack: Stack, options: Options, depth: int) -> None:
        super().__init__(vfs.new_dev(), vfs.now_ns)
        self.stack = stack
        self.budget: Any = vfs.budget
        self.stack_depth = depth
        self.options = options
        self.uuid = stack.uuid
        writable = UPPER in stack.layers
        self.read_only = self.only_read = stack.work is None
        top = stack.layers[UPPER if writable else 1].root
        self._above = top.fs
        self.xattr_user, self.posix_acls = top.fs.xattr_user, top.fs.posix_acls
        self._inodes: dict[Inode, ref[LayeredInode]] = {}
        """By their files in layers: those that are no directories."""
        lowers = tuple((at, layer.root) for at, layer in stack.layers.items() if at != UPPER)
        self._found = Found(top if writable else None, lowers)
        self._root: ref[LayeredDirectory] | None = None
        """Whoever has it holds all of this."""
        below = {layer.root.fs for layer in stack.layers.values()}
        self._held = [fs for fs in below if fs.mount_count]
        """In use as if they were mounted, until this is gone."""
        for fs in self._held:
            fs.mount_count += 1
        self.budget.mounts += len(stack.layers)

    def __del__(self) -> None:
        self.budget.mounts -= len(self.stack.layers)
        if self._held:  # nobody has ever mounted it
            for fs in self.let_go_below():
                at_once(unmounting.gone(fs, self.budget))

    @property
    def root(self) -> Inode:
        """The top."""
        found = self._root() if self._root is not None else None
        if found is None:
            found = LayeredDirectory(self, self._found, None, b"")
            self._root = ref(found)
        return found

    @property
    def no_devices(self) -> bool:  # type: ignore[override]
        """As whoever has no rights over devices has mounted it."""
        return self.owner is not None

    # --- inodes

    def inode_of(self, found: Found, parent: LayeredDirectory | None, name: bytes) -> LayeredInode:
        """What a name is, or a file without one; the same for all names of a file."""
        real = found.upper if found.upper is not None else found.lowers[0][1]
        known = self._inodes.get(real)
        inode = known() if known is not None else None
        if inode is None:
            make = LayeredDirectory if real.is_dir else LayeredInode
            inode = make(self, found, parent, name)
            if not found.apart:
                self.know(real, inode)
        if parent is not None:
            parent.know(name, inode)
        return inode

    def know(self, real: Inode, inode: LayeredInode) -> None:
        """It is that of a file in a layer."""
        if not inode.is_dir:
            self._inodes[real] = ref(inode)

    def forget(self, inode: LayeredInode) -> None:
        """Nobody holds it any more."""
        for real in (inode.upper, *(lower for _, lower in inode.lowers)):
            known = self._inodes.get(real) if real is not None else None
            if real is not None and known is not None and known() in (None, inode):
                del self._inodes[real]

    # --- the whole

    def statfs(self) -> StatFs:
        """Of the upper layer, or the topmost."""
        return self._above.statfs()._replace(magic=self.magic)

    def check_writable(self) -> None:
        """ovl_reconfigure(): without an upper layer it stays as it is."""
        if self.only_read:
            raise EROFS("no upper layer")

    def sync(self) -> None:
        """As the upper layer does."""
        if not self.read_only and not self.stack.volatile:
            self._above.sync()

    def settle(self) -> None:
        """The same."""
        self._above.settle()

    def let_go_below(self) -> Sequence[FileSystem]:
        """The layers'."""
        held, self._held = self._held, []
        for fs in held:
            fs.mount_count -= 1
        return held

    def show_options(self) -> str:
        """ovl_show_options()."""
        return self.options.shown(same_fs=self.stack.same_fs)
