"""Overlays that programs have mounted, and images in files, from their records: see layers.py.

Layers are there first: trees in memory, then what lies over these, then what lies over that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import O_RDONLY
from sentry.abi.mount import MS_NOATIME
from sentry.fs.erofs.filesystem import MAX_DEPTH, image_of
from sentry.fs.layers import options as given
from sentry.fs.layers.directory import LayeredDirectory
from sentry.fs.layers.filesystem import LAYERS, UPPERS, LayersFs, depth_over
from sentry.fs.layers.search import Found
from sentry.fs.layers.stack import LOCAL_INOS, UPPER, Layer, Stack, is_whiteout
from sentry.state import records
from sentry.state.loader import at, step
from sentry.state.pages import Damaged
from sentry.state.remounting import Unbuilt
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.fs.erofs.filesystem import ErofsFs
    from sentry.fs.layers.inode import LayeredInode
    from sentry.state.loader import Loader
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.interface import Inode


async def load(loader: Loader, fs: FileSystem, tree: records.Tree) -> list[Inode]:
    """The files that the record has. Raises: Damaged, and what the layers say."""
    made, overlay, image = loader.namespaces.mounts, tree.overlay, tree.image
    if isinstance(fs, Unbuilt) and fs.name == "overlay" and overlay is not None:
        found = await _overlay(loader, fs.devices, overlay)
        return await Held(loader, made.built(fs, found), overlay.files).load()
    if isinstance(fs, Unbuilt) and fs.name == "erofs" and image is not None:
        return [made.built(fs, await _image(loader, image)).inode]
    raise Damaged(f"a tree of another kind than {fs.name}")


async def _image(loader: Loader, record: records.Image) -> ErofsFs:
    """Mounted. Raises: Damaged, EUCLEAN, EIO."""
    dentry = await loader.namespaces.mounts.where(loader, record.at)
    inode, vfs = dentry.inode, loader.kernel.vfs
    if not inode.is_regular or inode.fs.stack_depth >= MAX_DEPTH:
        raise Damaged("an image that is no file, or one in an image in an image")
    mount = None if record.mount is None else at(loader.mounts, record.mount, "mount")
    if mount is None or mount.fs is not inode.fs:
        mount = vfs.new_mount(inode.fs, MS_NOATIME, dentry)
    await again(loader.rights.check_read, inode)
    nobody: Any = None
    file = await again(inode.open, Location(mount, dentry), O_RDONLY, nobody)
    file.count(vfs.budget)
    image = await image_of(vfs, file)
    image.stack_depth = inode.fs.stack_depth + 1
    return image


async def _overlay(loader: Loader, devices: list[int], record: records.Overlay) -> LayersFs:
    """One without mounts. Raises: Damaged, EINVAL, ELOOP, ENOSPC."""
    options = given.parse(record.data.decode("utf-8", "surrogateescape"))
    options.uuid = record.uuid_option
    vfs, upper = loader.kernel.vfs, bool(options.upper)
    if len(record.layers) != upper + len(options.lowers) - options.data_only:
        raise Damaged("an overlay with other layers than it says")
    vfs.budget.check_mounts(len(record.layers))
    numbers = iter(devices)
    stack = Stack(
        options, at(loader.creds, record.creds, "user"), lambda: next(numbers, 0) or vfs.new_dev()
    )
    for number, where in enumerate(record.layers, UPPER if upper else UPPER + 1):
        stack.add(number, await _layer(loader, where, is_upper=number == UPPER))
    depth = depth_over(layer.root.fs for layer in stack.layers.values())
    if upper:
        _write_to(loader, stack, record)
    for other in record.others:
        stack.trap(at(at(loader.inodes, other[0], "tree"), other[1], "file"))
    stack.uuid, stack.next_ino = record.uuid, record.next_ino
    if not LOCAL_INOS <= record.next_ino < 2 * LOCAL_INOS:
        raise Damaged("a number of a directory that is none")
    used = [fs for fs in {layer.root.fs for layer in stack.layers.values()} if fs.is_made_inside]
    for fs in used:  # as if it was mounted: its mounts are there later
        fs.mount_count += 1
    found = LayersFs(vfs, stack, options, depth)
    for fs in used:
        fs.mount_count -= 1
    return found


async def _layer(loader: Loader, record: records.Where, *, is_upper: bool) -> Layer:
    made = loader.namespaces.mounts
    dentry = await made.where(loader, record)
    inode = dentry.inode
    fs, kinds = inode.fs, UPPERS if is_upper else LAYERS
    if not inode.is_dir or fs.name.partition(".")[0] not in kinds:
        raise Damaged(f"{fs.name} as a layer of an overlay")
    if is_upper and isinstance(fs, LayersFs):
        raise Damaged("an overlay as the upper layer of an overlay")
    made.check_layer(record, dentry, is_upper=is_upper)
    return Layer(loader.kernel.vfs.new_mount(fs, MS_NOATIME, dentry), inode)


def _write_to(loader: Loader, stack: Stack, record: records.Overlay) -> None:
    """What `prepare` has found, if it could: the overlay can be written to then."""
    if record.work is None or record.whiteout is None:
        return
    fs = stack.layers[UPPER].root.fs
    work, whiteout = loader.in_tree(fs, record.work), loader.in_tree(fs, record.whiteout)
    if not work.is_dir or not is_whiteout(whiteout):
        raise Damaged("an overlay that cannot be written to")
    stack.work, stack.whiteout, stack.marks = work, whiteout, record.marks


class Held:
    """The files of an overlay that somebody has."""

    def __init__(self, loader: Loader, top: Dentry, files: list[records.LayeredFile]) -> None:
        """Raises: Damaged."""
        if not files or not isinstance(top.inode, LayeredDirectory):
            raise Damaged("an overlay without a root")
        self._loader = loader
        self._fs = top.inode.sb
        self._records = files
        self._made: list[Dentry | None] = [top, *[None] * (len(files) - 1)]
        """Their names, by which they are held as before."""

    async def load(self) -> list[Inode]:
        """All of them, by their places. Raises: Damaged, and what the layers say."""
        found: list[Inode] = []
        pace = Pace()
        for place, record in enumerate(self._records):
            inode: Any = (await self._file(place, pace)).inode
            inode.ino = record.ino
            devices = self._fs.stack.devices
            inode._dev = None if record.device is None else at(devices, record.device, "device")
            found.append(inode)
        return found

    async def _file(self, place: int, pace: Pace) -> Dentry:
        """The directories above come first."""
        way = [place]
        while self._made[way[-1]] is None:
            above = self._records[way[-1]].parent
            if above is None:
                break
            at(self._records, above, "file")
            if len(way) > len(self._records):
                raise Damaged("a directory that is in itself")
            way.append(above)
        for each in reversed(way):
            if self._made[each] is None:
                self._made[each] = await self._one(self._records[each])
            await pace.rest()
        found = self._made[place]
        assert found is not None
        return found

    async def _one(self, record: records.LayeredFile) -> Dentry:
        above = None if record.parent is None else self._made[record.parent]
        parent = None if above is None else above.inode
        if parent is not None and not isinstance(parent, LayeredDirectory):
            raise Damaged("names in what is no directory")
        if record.lost:
            return Dentry(None, record.name, await self._lost(record, parent))
        if parent is None or above is None:
            raise Damaged("a file that is nowhere")
        found = await step(parent, record.name, record.name)
        return above.child(record.name, found, self._loader.kernel.vfs.dentries)

    async def _lost(
        self, record: records.LayeredFile, parent: LayeredDirectory | None
    ) -> LayeredInode:
        """It has no name any more."""
        files: list[Inode] = []
        upper = None
        if record.upper is not None:
            above = self._fs.stack.layers.get(UPPER)
            if above is None:
                raise Damaged("a file of an upper layer that there is not")
            upper = self._loader.in_tree(above.root.fs, record.upper)
            files.append(upper)
        lowers: list[tuple[int, Inode]] = []
        below = {} if parent is None else dict(parent.lowers)
        for number in record.lowers:
            if number not in below:
                raise Damaged("a file of a layer that there is not")
            files.append(await step(below[number], record.name, record.name))
            lowers.append((number, files[-1]))
        if not files or (len(files) > 1 and not all(each.is_dir for each in files)):
            raise Damaged("a file of no layer, or of several")
        inode = self._fs.inode_of(Found(upper, tuple(lowers)), None, b"")
        inode.parent, inode.name, inode.gone = parent, record.name, record.gone
        return inode
