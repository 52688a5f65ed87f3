"""Bytes as they come: of a part of a file, decompressed, counted, hashed.

Nothing here holds more than a piece, whatever a stream says of itself. Which compression it is
tells the stream, not its name or its media type, as for tar(1) and every engine.
"""

from __future__ import annotations

import bz2
import hashlib
import importlib
import lzma
import os
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from runsc.images.errors import ImageError

PIECE: Final = 1 << 18
"""Bytes that are read at once."""
MEMORY: Final = 256 << 20
"""Of xz: what its dictionary may take; `xz -9` wants 65 MiB."""
HEAD: Final = 512
"""Bytes by which a compression is known."""


class Stream:
    """Bytes, from the first to the last."""

    def read(self, size: int) -> bytes:
        """At most so many, b"" at the end only. Preconditions: size > 0. Raises: ImageError."""
        raise NotImplementedError

    def skip(self, size: int) -> None:
        """Pass over so many. Raises: ImageError if there are fewer."""
        while size:
            got = len(self.read(min(size, PIECE)))
            if not got:
                raise ImageError("is cut short")
            size -= got


class Part(Stream):
    """Some bytes of an open file, by pread(2): several may read it at once."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.offset = offset
        """Of the next byte, in the file."""
        self._end = offset + size

    def read(self, size: int) -> bytes:
        data = os.pread(self.fd, min(size, PIECE, self._end - self.offset), self.offset)
        self.offset += len(data)
        return data

    def skip(self, size: int) -> None:
        if size > self._end - self.offset:
            raise ImageError("is cut short")
        self.offset += size


class Hashed(Stream):
    """Another stream, with the SHA-256 of what was read."""

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        return data

    def digest(self) -> str:
        """Of all of it: reads what is left. "sha256:" and 64 digits."""
        while self.read(PIECE):
            pass
        return f"sha256:{self._hash.hexdigest()}"


class Buffered(Stream):
    """Another stream, read in large pieces, for who asks for small ones."""

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._data = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        if self._at == len(self._data):
            if size >= PIECE:
                return self._source.read(size)
            self._data, self._at = self._source.read(PIECE), 0
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        return data


class Watched(Stream):
    """Another stream, of which somebody hears how many bytes more were read."""

    def __init__(self, source: Stream, more: Callable[[int], None]) -> None:
        self._source = source
        self._more = more

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._more(len(data))
        return data


class Budget:
    """How many bytes an image may be when it is decompressed, over all of its layers."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = self._left = limit_bytes

    def take(self, count: int) -> None:
        """Raises: ImageError."""
        self._left -= count
        if self._left < 0:
            raise ImageError(f"is larger than the limit of {self._limit} bytes")


class Counted(Stream):
    """Another stream, taken from a budget."""

    def __init__(self, source: Stream, budget: Budget) -> None:
        self._source = source
        self._budget = budget

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._budget.take(len(data))
        return data


class Decompressor(Protocol):
    """One member of a compressed stream, as bz2, lzma and compression.zstd have it."""

    @property
    def eof(self) -> bool:
        """The member has ended;"""

    @property
    def unused_data(self) -> bytes:
        """what came behind its end."""

    @property
    def needs_input(self) -> bool:
        """Nothing more comes of what it was given."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """What comes of it, at most so many bytes."""


class _Gzip:
    """zlib's decompressor, in the same shape."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._more = False

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._more

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        made = self._zlib.decompress(self._zlib.unconsumed_tail + data, max(max_length, 0))
        self._more = bool(self._zlib.unconsumed_tail) or len(made) == max_length
        return made


Errors = tuple[type[Exception], ...]


class Format(NamedTuple):
    """A compression."""

    name: str
    magic: bytes
    make: Callable[[], tuple[Decompressor, Errors]]
    """A decompressor, and what it raises where its bytes are wrong. Raises: ImageError."""


def _gzip() -> tuple[Decompressor, Errors]:
    return _Gzip(), (zlib.error,)


def _bzip2() -> tuple[Decompressor, Errors]:
    return bz2.BZ2Decompressor(), (OSError, ValueError)


def _xz() -> tuple[Decompressor, Errors]:
    made = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
    return made, (lzma.LZMAError,)


def _zstd() -> tuple[Decompressor, Errors]:
    """Of Python 3.14, or its backport. What a frame's window may take is zstd's own bound."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return module.ZstdDecompressor(), (module.ZstdError,)
    raise ImageError("is compressed with zstd, which needs Python 3.14 or runsc[images]")


FORMATS: Final = (
    Format("gzip", b"\x1f\x8b", _gzip),
    Format("bzip2", b"BZh", _bzip2),
    Format("xz", b"\xfd7zXZ\0", _xz),
    Format("zstd", b"\x28\xb5\x2f\xfd", _zstd),
)


def format_of(head: bytes) -> Format | None:
    """How a stream that begins so is compressed; None: not, or in another way.

    A tar whose first file is called BZhello is a tar.
    """
    if head[257:262] == b"ustar":
        return None
    return next((each for each in FORMATS if head.startswith(each.magic)), None)


class Decompressed(Stream):
    """What a compressed stream holds: all members, one after the other, and zeros behind them."""

    def __init__(self, source: Stream, form: Format, held: bytes = b"") -> None:
        self._source = source
        self._form = form
        self._held = held
        """What was read of the source, and not used."""
        self._decompressor, self._errors = form.make()

    def read(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof and not self._begin_next():
                return b""
            data = b""
            if self._decompressor.needs_input:
                data = self._held or self._source.read(PIECE)
                self._held = b""
                if not data:
                    raise ImageError(f"is cut short: the end of {self._form.name} is missing")
            try:
                made = self._decompressor.decompress(data, size)
            except self._errors as error:
                raise ImageError(f"is no valid {self._form.name}: {error}") from None
            if made:
                return made

    def _begin_next(self) -> bool:
        """Whether another member follows the one that has ended."""
        rest = (self._held or self._decompressor.unused_data).lstrip(b"\0")
        while not rest:
            data = self._source.read(PIECE)
            if not data:
                return False
            rest = data.lstrip(b"\0")
        self._held = rest
        self._decompressor, self._errors = self._form.make()
        return True


def opened(source: Stream) -> Stream:
    """A stream that may be compressed, without that. Raises: ImageError."""
    head = b""
    while len(head) < HEAD and (more := source.read(HEAD - len(head))):
        head += more
    form = format_of(head)
    return _Again(source, head) if form is None else Decompressed(source, form, head)


class _Again(Stream):
    """A stream of which the head was read."""

    def __init__(self, source: Stream, head: bytes) -> None:
        self._source = source
        self._head = head

    def read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._source.read(size)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """pwrite(2) until all is written."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done
