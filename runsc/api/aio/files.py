"""Files of a sandbox: `sandbox.files`.

All of it is done inside, by the sandbox's own kernel and with the rights of a user: paths are
resolved there, whatever links lead where, and no program takes part, unless one has mounted what it
serves itself (fuse). So what does not go on for `ANSWER_S` is given up: SandboxError.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, overload

import msgspec

from runsc.api import accounts, events, transfer
from runsc.api.aio.streams import AsyncSink, AsyncStream, pipe
from runsc.api.aio.watching import AsyncWatch, nothing
from runsc.api.aio.wire import ANSWER_S, AsyncWire, ask
from runsc.api.errors import SandboxError
from runsc.api.values import EntryInfo, FileChange, PathLike
from sentry.abi.limits import PATH_MAX
from sentry.control import answers
from sentry.control.answers import FileEntry
from sentry.control.orders import FileOrder
from sentry.control.protocol import LineBuffer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runsc.accounts import Ids

T = TypeVar("T")
Content = str | bytes | bytearray | memoryview | Iterable[bytes]
Entries = list[EntryInfo]
Changes = list[FileChange]
READ = 64 << 20
"""Bytes of a file that are read as one, unless more are allowed."""
LISTED = 100_000
"""The same of names."""
DOWNLOADED = 4 << 30
"""Bytes that come to the host, unless more are allowed."""
PIECE = 1 << 20
ACCOUNTS_S = 10.0
"""How long /etc/passwd and /etc/group may take, which a program serves, perhaps."""
REMOVED_S = 3600.0
"""How long all that is in a folder may take to be removed: nothing is told meanwhile."""


def encoded(path: PathLike) -> bytes:
    """As the sandbox has it. Raises: ValueError, OSError, as for a file of the host."""
    found = os.fsencode(path)
    if b"\0" in found:
        raise ValueError("a path with a NUL")
    if len(found) >= PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return found


def failure(name: str, path: PathLike, *others: PathLike) -> Exception:
    """What the name of an errno means here."""
    number = getattr(errno, name, None)
    if not isinstance(number, int):
        return SandboxError(name)
    shown = [os.fsdecode(encoded(each)) for each in (path, *others)]
    if len(shown) == 1:
        return OSError(number, os.strerror(number), shown[0])
    return OSError(number, os.strerror(number), shown[0], None, shown[1])


async def account(path: str, user: str | int | None) -> Ids | None:
    """Who that is in the sandbox whose control socket has this path; None: nobody is named.

    Raises: SandboxError.
    """
    if user is None:
        return None
    found = accounts.by_number(user)
    if found is not None:
        return found
    texts: list[bytes] = []
    deadline = time.monotonic() + ACCOUNTS_S
    for name in (accounts.PASSWD, accounts.GROUP):
        try:
            texts.append(await AsyncFiles(path, 0)._accounts(name, deadline))
        except FileNotFoundError:
            texts.append(b"")
        except OSError as error:
            raise SandboxError(f"in the sandbox {name}: {error.strerror}") from None
    return accounts.by_name(str(user), *texts)


class AsyncFiles:
    """Files of one sandbox."""

    def __init__(self, path: str, user: str | int | None) -> None:
        self._path = path
        """Of the control socket."""
        self._user = user

    async def _order(self, order: FileOrder, user: str | int | None) -> FileOrder:
        """With the rights of somebody; root, if nobody is named."""
        found = await account(self._path, self._user if user is None else user)
        if found is None:
            return order
        return msgspec.structs.replace(
            order, uid=found.uid, gid=found.gid, groups=found.groups
        )

    async def _do(self, order: FileOrder, user: str | int | None, *paths: PathLike) -> Reply:
        """What needs no pipe. Raises: OSError."""
        request = Request("file", file=await self._order(order, user))
        patience_s = REMOVED_S if order.do == "remove" else ANSWER_S
        reply = await ask(self._path, request, patience_s=patience_s)
        if reply.error:
            raise failure(reply.error, *paths)
        return reply

    # --- one file

    @overload
    async def read(
        self, path: PathLike, format: Literal["text"] = "text", *, user: str | int | None = None,
        limit: int = READ, offset: int = 0,
    ) -> str: ...  # fmt: skip

    @overload
    async def read(
        self, path: PathLike, format: Literal["bytes"], *, user: str | int | None = None,
        limit: int = READ, offset: int = 0,
    ) -> bytes: ...  # fmt: skip

    async def read(
        self, path: PathLike, format: Literal["text", "bytes"] = "text", *,
        user: str | int | None = None, limit: int = READ, offset: int = 0,
    ) -> str | bytes:  # fmt: skip
        """A whole file, from `offset` on: text (UTF-8), or bytes. For larger ones: `stream`.

        Raises: OSError, EFBIG if there are more bytes than `limit`; UnicodeDecodeError.
        """
        if limit < 0:
            raise ValueError(f"a limit of {limit} bytes")
        data = bytearray()
        async for piece in self.stream(path, user=user, size=limit + 1, offset=offset):
            data += piece
            if len(data) > limit:  # whatever comes besides
                raise failure("EFBIG", path)
        return data.decode() if format == "text" else bytes(data)

    async def stream(
        self, path: PathLike, *, user: str | int | None = None, size: int = 0, offset: int = 0
    ) -> AsyncIterator[bytes]:
        """A file in pieces, as somebody takes them; `size`: so many bytes, 0: all.

        Raises: OSError.
        """
        order = FileOrder("read", encoded(path), size=size, offset=offset)
        async for piece in self._through(order, user, path):
            yield piece

    async def write(
        self, path: PathLike, data: Content, *, user: str | int | None = None,
        append: bool = False, mode: int = 0o644,
    ) -> None:  # fmt: skip
        """Write a file, which is made with the `mode` (less the umask) if it is not there, as are
        folders above it. `append`: behind what it has. Raises: OSError."""
        if isinstance(data, str):
            data = data.encode()
        elif isinstance(data, bytearray | memoryview):
            data = bytes(data)
        folder = os.path.dirname(encoded(path).rstrip(b"/"))
        order = FileOrder("write", encoded(path), mode=mode, append=append)
        if isinstance(data, bytes):
            try:
                await self._write(order, [data], user, path)
                return
            except FileNotFoundError:
                if not folder:
                    raise
                data = [data]
        if folder.strip(b"/"):
            await self.make_dir(folder, user=user)
        await self._write(order, data, user, path)

    async def _write(
        self, order: FileOrder, data: Iterable[bytes], user: str | int | None, path: PathLike
    ) -> None:
        request = Request("file", file=await self._order(order, user))
        out, into = pipe()
        source = AsyncSink(into)
        try:
            async with await AsyncWire.connect(self._path) as wire:
                try:
                    await wire.send(request, [out])
                finally:
                    os.close(out)
                    out = -1
                try:
                    for piece in data:
                        await source.send(piece, ANSWER_S)
                except BrokenPipeError:  # the answer says why
                    pass
                source.close()
                reply = await wire.reply(ANSWER_S)
        finally:
            source.close()
            if out >= 0:
                os.close(out)
        if reply.error:
            raise failure(reply.error, path)

    async def stat(
        self, path: PathLike, *, follow: bool = True, user: str | int | None = None
    ) -> EntryInfo:
        """What is known of a file; with `follow` of what a link names. Raises: OSError."""
        order = FileOrder("stat", encoded(path), follow=follow)
        reply = await self._do(order, user, path)
        if reply.file is None:
            raise SandboxError("the sandbox tells nothing of the file")
        return events.entry_of(reply.file)

    async def exists(self, path: PathLike, *, user: str | int | None = None) -> bool:
        """Whether something has that name. Raises: OSError where nobody may know."""
        try:
            await self.stat(path, user=user)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    # --- names

    async def make_dir(
        self, path: PathLike, *, user: str | int | None = None, mode: int = 0o755
    ) -> bool:
        """Make a folder, and those above it; False if it was there. Raises: OSError."""
        try:
            await self._do(FileOrder("make", encoded(path), mode=mode), user, path)
        except FileExistsError:
            return False
        return True

    async def remove(self, path: PathLike, *, user: str | int | None = None) -> None:
        """Remove a file, or a folder with all that is in it; links are not followed, and nothing
        that is mounted is touched. Raises: OSError."""
        await self._do(FileOrder("remove", encoded(path)), user, path)

    async def rename(
        self, old: PathLike, new: PathLike, *, user: str | int | None = None
    ) -> None:
        """Give a file another name; what has that name is replaced. Raises: OSError."""
        await self._do(FileOrder("rename", encoded(old), encoded(new)), user, old, new)

    async def list(
        self, path: PathLike = "/", *, depth: int = 1, user: str | int | None = None,
        limit: int = LISTED,
    ) -> Entries:  # fmt: skip
        """What is in a folder, with `depth` also in those in it; a folder comes before what it has.

        Raises: OSError, EOVERFLOW if there are more than `limit`.
        """
        order = FileOrder("list", encoded(path), depth=depth)
        found: Entries = []
        async for entry in self._values(order, FileEntry, user, path):
            if len(found) >= limit:
                raise failure("EOVERFLOW", path)
            found.append(events.entry_of(entry))
        return found

    async def diff(self, *, limit: int = LISTED) -> Changes:
        """What is not as it was when the sandbox began, by path.

        Of what was moved the old name is removed and the new one added, a folder as one. Folders
        that are mounted are not looked at. Raises: OSError.
        """
        found: Changes = []
        async for change in self._values(FileOrder("diff"), answers.FileChange, None, "/"):
            if len(found) >= limit:
                raise failure("EOVERFLOW", "/")
            found.append(events.change_of(change))
        return sorted(found, key=lambda change: change.path)

    async def watch_dir(
        self, path: PathLike, *, user: str | int | None = None
    ) -> AsyncWatch:
        """Watch a folder: an iterator of what happens in it, from now on. Raises: OSError."""
        request = Request("file", file=await self._order(FileOrder("watch", encoded(path)), user))
        out, into = pipe()
        wire = None
        try:
            wire = await AsyncWire.connect(self._path)
            await wire.send(request, [into])
            reply = await wire.reply()
            if reply.error:
                raise failure(reply.error, path)
        except BaseException:
            os.close(out)
            if wire is not None:
                wire.close()
            raise
        finally:
            os.close(into)
        return AsyncWatch(wire, AsyncStream(out, nothing))

    # --- to the host and from it

    async def upload(
        self, local: str | os.PathLike[str], path: PathLike, *, user: str | int | None = None
    ) -> None:
        """Copy a file of the host, or a folder with files and folders, to that path; what is
        neither is left out. Modes are kept. Raises: OSError."""
        source = transfer.Source(os.fspath(local))
        try:
            for entry in source:
                target = encoded(path) + entry.below
                if entry.is_dir:
                    await self.make_dir(target, user=user, mode=entry.mode)
                    continue
                with source.opened(entry) as file:
                    pieces = iter(partial(file.read, PIECE), b"")
                    await self.write(target, pieces, user=user, mode=entry.mode)
        finally:
            source.close()

    async def download(
        self, path: PathLike, local: str | os.PathLike[str], *, user: str | int | None = None,
        limit: int = LISTED, max_bytes: int = DOWNLOADED,
    ) -> None:  # fmt: skip
        """Copy a file, or a folder with files and folders, to the host, where nothing of that name
        may be. Links and special files are left out: on the host they would name something else.

        Raises: OSError, EOVERFLOW if there are more names than `limit`, EFBIG if there are more
        bytes than `max_bytes`: what was copied until then stays.
        """
        start = await self.stat(path, user=user)
        if start.type not in ("dir", "file"):
            raise failure("EINVAL", path)
        target = transfer.Target(os.fspath(local), max_bytes)
        try:
            if start.type == "file":
                await self._fetch(path, target.file(b"", start.mode), user)
                return
            target.folder(b"", start.mode)
            base = len(encoded(path).rstrip(b"/"))
            found = await self.list(path, depth=1 << 16, user=user, limit=limit)
            try:
                for entry in found:
                    below = encoded(entry.path)[base:]
                    if entry.type == "dir":
                        target.folder(below, entry.mode)
                    elif entry.type == "file":
                        await self._fetch(entry.path, target.file(below, entry.mode), user)
            except ValueError as error:
                raise SandboxError(f"the sandbox said what is no name: {error}") from None
        finally:
            target.close()

    async def _fetch(
        self, path: PathLike, file: transfer.Made, user: str | int | None
    ) -> None:
        with file:
            async for piece in self.stream(path, user=user):
                file.write(piece)

    # --- what comes through a pipe

    async def _accounts(self, name: str, deadline: float) -> bytes:
        """What must be a regular file that is not large. Raises: OSError."""
        most = accounts.MAX_BYTES
        order = FileOrder("read", name.encode(), size=most + 1, regular=True)
        data = bytearray()
        async for piece in self._through(order, None, name, deadline):
            data += piece
            if len(data) > most:
                raise failure("EFBIG", name)
        return bytes(data)

    async def _through(
        self, order: FileOrder, user: str | int | None, path: PathLike, deadline: float = math.inf
    ) -> AsyncIterator[bytes]:
        """Bytes, as somebody takes them; then how it has ended. Raises: OSError."""

        def patience_s() -> float:
            return max(0.0, min(ANSWER_S, deadline - time.monotonic()))

        request = Request("file", file=await self._order(order, user))
        out, into = pipe()
        source = AsyncStream(out, nothing)
        try:
            async with await AsyncWire.connect(self._path) as wire:
                try:
                    await wire.send(request, [into])
                finally:
                    os.close(into)
                    into = -1
                while piece := await source.read(patience_s=patience_s()):
                    yield piece
                reply = await wire.reply(patience_s())
        finally:
            source.close()
            if into >= 0:
                os.close(into)
        if reply.error:
            raise failure(reply.error, path)

    async def _values(
        self, order: FileOrder, kind: type[T], user: str | int | None, path: PathLike
    ) -> AsyncIterator[T]:
        """Lines of JSON, as values."""
        lines = LineBuffer()
        async for piece in self._through(order, user, path):
            for value in events.decoded(lines, piece, kind):
                yield value
