"""A bus with a systemd on it, as far as a client that makes scopes can see."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jeepney

MANAGER = "org.freedesktop.systemd1.Manager"
PATH = "/org/freedesktop/systemd1"
Call = tuple[str, Any]


class FakeBus:
    """Answers one connection after the other, in a thread; `calls` is what systemd was asked."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:path={path}"
        self.calls: list[Call] = []
        self.errors: dict[str, list[str]] = {}
        """Method → names of errors, for its next calls."""
        self.result = "done"
        self.started: Callable[[str, dict[str, Any]], object] = lambda _unit, _properties: None
        """What systemd does before it says that a unit is there."""
        self.matched: list[str] = []
        """Rules that the bus was given."""
        self._jobs = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def of(self, method: str) -> list[Any]:
        """The arguments of the calls of a method."""
        return [body for name, body in self.calls if name == method]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        while b"AUTH EXTERNAL\r\nDATA\r\n" not in data:
            data += connection.recv(1024)
        connection.sendall(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n")
        data = b""
        while b"BEGIN\r\n" not in data:
            data += connection.recv(1024)
        parser = jeepney.Parser()
        data = data.partition(b"BEGIN\r\n")[2]
        serial = 0
        while True:
            for message in parser.feed(data):
                for answer in self._answers(message):
                    serial += 1
                    connection.sendall(answer.serialise(serial))
            data = connection.recv(4096)
            if not data:
                return

    def _answers(self, message: Any) -> list[Any]:
        method = message.header.fields[jeepney.HeaderFields.member]
        if method == "Hello":
            return [jeepney.new_method_return(message, "s", (":1.7",))]
        if method == "AddMatch":
            self.matched += message.body
            return [jeepney.new_method_return(message)]
        self.calls.append((method, message.body))
        if self.errors.get(method):
            name = self.errors[method].pop(0)
            return [jeepney.new_error(message, name, "s", (f"no {method}",))]
        if method == "Get":
            value = ("s", "/user.slice/user-7.slice/user@7.service")
            return [jeepney.new_method_return(message, "v", (value,))]
        if method not in ("StartTransientUnit", "StopUnit"):
            return [jeepney.new_method_return(message)]
        if method == "StartTransientUnit":
            self.started(message.body[0], {name: value for name, (_, value) in message.body[2]})
        self._jobs += 2
        job = f"{PATH}/job/{self._jobs}"
        return [
            self._removed(f"{PATH}/job/{self._jobs - 1}", "others.service", "failed"),
            jeepney.new_method_return(message, "o", (job,)),
            self._removed(job, message.body[0], self.result),
        ]

    def _removed(self, job: str, unit: str, result: str) -> Any:
        emitter = jeepney.DBusAddress(PATH, interface=MANAGER)
        return jeepney.new_signal(emitter, "JobRemoved", "uoss", (1, job, unit, result))
