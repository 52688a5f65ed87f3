"""What a name of a merged directory is: ovl_lookup() of fs/overlayfs/namei.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.errors import EINVAL
from sentry.fs.layers.stack import UPPER, is_whiteout
from sentry.vfs.interface import Absent, Inode
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.fs.layers.stack import Lowers, Origin, Stack

MAX_PARTS: Final = 2048
"""Of a path from the top: half of PATH_MAX."""


class Found(NamedTuple):
    """What a name is."""

    upper: Inode | None
    lowers: Lowers
    """Of a directory those that are merged, else one at most, and none below an upper one."""
    redirect: bytes = b""
    """Of a directory of the upper layer."""
    apart: bool = False
    """One of several names of a file of a lower layer, of which a change copies one."""
    origin: Origin | None = None
    """What a file of the upper layer is a copy of."""


def numbered(found: Found) -> Origin:
    """The file whose number it has: it stays when it is copied up. ovl_getattr()."""
    if found.origin is not None:
        return found.origin
    real = found.lowers[0][1] if found.lowers else found.upper
    assert real is not None
    return real.fs, real.ino


class _Way:
    """Where lower layers are looked at: below the parent's directories, or from the top down."""

    __slots__ = ("name", "pace", "path")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.path: list[bytes] | None = None
        self.pace = Pace()

    def go(self, path: list[bytes]) -> None:
        """From the top down from now on. Raises: EINVAL."""
        if len(path) > MAX_PARTS:
            raise EINVAL("a path of many directories")
        self.path = path

    def turn(self, redirect: bytes) -> None:
        """A directory that was found is elsewhere in the layers below. Raises: EINVAL."""
        if redirect[:1] == b"/":
            self.go(redirect[1:].split(b"/"))
        elif self.path is not None:
            self.path[-1] = redirect
        else:
            self.name = redirect


async def find(stack: Stack, upper: Inode | None, lowers: Lowers, name: bytes) -> Found | None:
    """A name of the directory that these make. Raises: EPERM, EINVAL, EIO, as they do."""
    way, redirect = _Way(name), b""
    above: Inode | None = None
    if upper is not None:
        there: Inode | Absent = await again(stack.look, upper, name)
        if not isinstance(there, Absent):
            if is_whiteout(there):
                return None
            if not there.is_dir:
                return Found(there, (), origin=await again(stack.origin, there))
            if await again(stack.is_opaque, there):
                return Found(there, ())
            above, redirect = there, await again(stack.redirect, there)
            if redirect:
                way.turn(redirect)
    below = await _lower(stack, dict(lowers), way, above is not None)
    if above is not None:
        return Found(above, below, redirect)
    if not below:
        return None
    real, apart = below[0][1], False
    if not real.is_dir and UPPER in stack.layers:
        apart = (await again(real.stat)).nlink > 1
    return Found(None, below, b"", apart)


async def _lower(stack: Stack, parents: dict[int, Inode], way: _Way, is_dir: bool) -> Lowers:
    found: list[tuple[int, Inode]] = []
    for number, layer in stack.layers.items():
        if number == UPPER:
            continue
        if way.path is None:
            parent = parents.get(number)
            if parent is None:
                continue
            there, ends = await _step(stack, parent, way)
        else:
            there, ends = await _walk(stack, layer.root, way)
        if there is not None and not there.is_dir:
            return tuple(found) if found or is_dir else ((number, there),)
        if there is not None:
            found.append((number, there))
        if ends:
            break
        await way.pace.rest()
    return tuple(found)


async def _step(stack: Stack, parent: Inode, way: _Way) -> tuple[Inode | None, bool]:
    """In one layer: what is there, and whether layers below it do not count."""
    there: Inode | Absent = await again(stack.look, parent, way.name)
    if isinstance(there, Absent):
        return None, False
    if await again(stack.hides, parent, there):
        return None, True
    if not there.is_dir or await again(stack.is_opaque, there):
        return there, True
    redirect = await again(stack.redirect, there) if stack.follows else b""
    if redirect:
        way.turn(redirect)
    return there, False


async def _walk(stack: Stack, root: Inode, way: _Way) -> tuple[Inode | None, bool]:
    """The same by a path from the top; directories on the way may be elsewhere, too."""
    path = way.path or []
    at, ends, further = root, False, _Way(b"")
    further.path = []
    for index, part in enumerate(path):
        there: Inode | Absent = await again(stack.look, at, part)
        if isinstance(there, Absent):
            way.go(further.path + path[index:])
            return None, ends
        if await again(stack.hides, at, there):
            return None, True
        if not there.is_dir:
            return (there if index == len(path) - 1 else None), True
        at = there
        further.path.append(part)
        if await again(stack.is_opaque, there):
            ends = True
        elif stack.follows and (redirect := await again(stack.redirect, there)):
            further.turn(redirect)
        await way.pace.rest()
    way.go(further.path)
    return at, ends
