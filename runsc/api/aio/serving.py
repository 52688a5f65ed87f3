"""Who serves an object of the caller's to a sandbox: tasks of the event loop. Not generated."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from gofer.p9.codec import Message
from gofer.p9.constants import MSIZE_MAX
from gofer.p9.fields import ProtocolError
from gofer.p9.frames import FrameReader
from runsc.api.told import (
    CONNECTIONS,
    LATER,
    LATER_S,
    LINE_S,
    MAX_LINE,
    Place,
    Told,
    handler_of,
    told_of,
)
from runsc.fs.service import Service

PIECE = 1 << 18
log = logging.getLogger("runsc")
Handler = Callable[["AsyncConnection"], Coroutine[Any, Any, object]]
AT_ONCE = 64
"""Requests under way; those whose reply the sandbox does not take are, too."""


class AsyncServing:
    """One session."""

    def __init__(self, service: Service, served: object, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._service = service
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._unsent: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        """Replies, and whether they have a place until they are sent."""
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        service.send = self._send_from_anywhere

    def start(self) -> None:
        """From now on."""
        self._server = self._spawn(self._serve())

    def close(self) -> None:
        """The sandbox gets EIO from now on."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    async def ended(self, patience_s: float) -> bool:
        """Once nothing of it runs any more; False if that takes longer."""
        done, _ = await asyncio.wait((self._server,), timeout=patience_s)
        return bool(done)

    def _spawn(self, coro: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(coro)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self) -> None:
        reader, writer = FrameReader(MSIZE_MAX), self._spawn(self._write())
        try:
            while data := await self._loop.sock_recv(self._sock, PIECE):
                for tag, message in reader.feed(data):
                    if self._unsent.qsize() > AT_ONCE:  # those that come later have no place
                        await self._unsent.join()
                    await self._places.acquire()
                    if isinstance(message, self._service.beside):
                        self._spawn(self._answer(tag, message))
                    else:
                        await self._answer(tag, message)
        except (OSError, ProtocolError):
            pass  # it has ended, or the sandbox says what is no 9P
        finally:
            for task in [*self._tasks]:
                if task is not asyncio.current_task():
                    task.cancel()
            writer.cancel()
            self._sock.close()
            await self._service.end()

    async def _answer(self, tag: int, message: Message) -> None:
        is_sent_later = False
        try:
            reply = await self._service.answer(tag, message)
            if reply is not None:
                self._unsent.put_nowait((reply.encode(tag), True))
                is_sent_later = True
        finally:
            if not is_sent_later:
                self._places.release()

    async def _write(self) -> None:
        try:
            while True:
                data, has_place = await self._unsent.get()
                await self._loop.sock_sendall(self._sock, data)
                self._unsent.task_done()
                if has_place:
                    self._places.release()
        except OSError:
            self._server.cancel()  # it may wait for a place

    def _send(self, tag: int, reply: Message) -> None:
        self._unsent.put_nowait((reply.encode(tag), False))

    def _send_from_anywhere(self, tag: int, reply: Message) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._send, tag, reply)


class AsyncConnection:
    """A connection that a program in a sandbox has made, with what is known of who made it."""

    def __init__(self, sock: socket.socket, told: Told) -> None:
        self.socket = sock
        """A stream, which does not block: the program's bytes."""
        self.told = told

    async def recv(self, size: int) -> bytes:
        """Up to so many bytes; none: there are no more."""
        return await asyncio.get_running_loop().sock_recv(self.socket, size)

    async def sendall(self, data: bytes) -> None:
        """All of it. Raises: OSError once the program does not take it."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)


class AsyncListening:
    """Serves connections: an accepting task, and one for each."""

    def __init__(self, sock: socket.socket, handlers: Mapping[Place, Handler]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._handlers = handlers
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._accept())

    def close(self) -> None:
        """Nobody is served any more; connections go on."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _spawn(self, coro: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        with self._sock:
            while True:
                await self._places.acquire()
                try:
                    came, _ = await self._loop.sock_accept(self._sock)
                except OSError as error:
                    if error.errno not in LATER:
                        return  # it is closed
                    self._places.release()
                    await asyncio.sleep(LATER_S)
                else:
                    self._spawn(self._served(came))

    async def _served(self, came: socket.socket) -> None:
        try:
            await self._serve(came)
        finally:
            self._places.release()

    async def _serve(self, came: socket.socket) -> None:
        with came:
            try:
                came.setblocking(False)
                line = bytearray()
                async with asyncio.timeout(LINE_S):
                    while not line.endswith(b"\n") and len(line) < MAX_LINE:
                        more = await self._loop.sock_recv(came, 1)
                        if not more:
                            return
                        line += more
                told = told_of(bytes(line))
                handler = handler_of(self._handlers, told)
                if handler is not None:
                    await handler(AsyncConnection(came, told))
            except (ConnectionError, TimeoutError):
                pass  # the program does not listen any more
            except Exception:
                log.exception("a connection that is served")
