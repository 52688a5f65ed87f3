#!/usr/bin/env python3
"""A broker for HTTP: it adds a secret to what programs of a sandbox ask for, and asks over TLS.

    http_broker.py [--to NAME=URL]... SOCKET NAME=FILE...

A rule of an egress policy hands connections to NAME, port 80, to SOCKET (docs/egress.md). Programs
ask http://NAME/...; this asks https://NAME/... (or URL) with the line of FILE as a header, such as
"Authorization: Bearer ...". What is in FILE never gets inside, unless whoever is asked says it.

It is an example: one request of a program is one connection outside, and nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import socketserver
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from typing import Any, cast
from urllib.parse import urlsplit

HOP_BY_HOP = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",
))  # fmt: skip
"""Headers that are about one connection: RFC 9110, 7.6.1."""
OURS = frozenset(("host", "content-length", "expect"))
WITHOUT_BODY = frozenset((204, 304))
PIECE = 1 << 16
PATIENCE_S = 60
ACTIVATED_FD = 3
"""sd_listen_fds(3): a socket that the service manager keeps, also while this is restarted."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a program."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def setup(self) -> None:
        """The line of JSON comes first: whom the connection is for, and whose it is."""
        super().setup()
        self.about: dict[str, Any] = json.loads(self.rfile.readline(PIECE))

    def forward(self) -> None:
        """Ask outside what the program asks here."""
        broker = cast(Broker, self.server)
        name = self.headers.get("Host", "").partition(":")[0].lower()
        if name not in self.about["names"] or name not in broker.headers:
            self.send_error(421)  # the policy knows whom this connection is for, not the program
            return
        sizes = self.headers.get_all("Content-Length", [])
        if len(sizes) > 1 or not all(each.isascii() and each.isdigit() for each in sizes):
            self.send_error(400)
            return
        if "Transfer-Encoding" in self.headers or not self.path.startswith("/"):
            self.send_error(411 if self.path.startswith("/") else 400)
            return
        size = int(sizes[0]) if sizes else 0
        connection = broker.connection_to(name)
        try:
            self._ask(connection, broker.headers[name], name, size)
            response = connection.getresponse()
        except (OSError, HTTPException):
            self.close_connection = True
            self.send_error(502)
            return
        else:
            self._answer(response)
        finally:
            connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = forward

    def _ask(
        self, connection: HTTPConnection, secret: tuple[str, str], name: str, size: int
    ) -> None:
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", name)
        for key, value in self._kept(self.headers.items(), secret[0]):
            connection.putheader(key, value)
        connection.putheader(*secret)
        if size or self.command in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(size))
        connection.endheaders()
        while size:
            piece = self.rfile.read(min(size, PIECE))
            if not piece:
                raise ConnectionError("the program has left")
            connection.send(piece)
            size -= len(piece)

    def _answer(self, response: HTTPResponse) -> None:
        self.send_response_only(response.status, response.reason)
        for key, value in self._kept(response.getheaders(), ""):
            self.send_header(key, value)
        has_body = self.command != "HEAD" and response.status not in WITHOUT_BODY
        is_open = has_body and response.length is None  # nobody knows how long it is
        chunked = is_open and self.request_version == "HTTP/1.1"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" in response.headers and not is_open:
            self.send_header("Content-Length", response.headers["Content-Length"])
        self.close_connection |= is_open and not chunked
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        while has_body and (piece := response.read1(PIECE)):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        elif response.length:  # it was cut short
            self.close_connection = True

    def _kept(self, headers: Any, but: str) -> Iterator[tuple[str, str]]:
        """Those that go on, but for one."""
        named = self.headers.get("Connection", "").lower().replace(" ", "").split(",")
        left_out = HOP_BY_HOP | OURS | {but.lower(), *named}
        for key, value in headers:
            if key.lower() not in left_out:
                yield key, value

    def log_message(self, text: str, *values: Any) -> None:
        """Who has asked for what; never with a secret."""
        about = f"{self.about['container']} {self.about['program']}[{self.about['pid']}]"
        print(about, text % values, file=sys.stderr, flush=True)


class Broker(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """It listens."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, path: str, headers: dict[str, tuple[str, str]], urls: dict[str, str]
    ) -> None:
        self.headers, self._urls = headers, urls
        activated = os.environ.get("LISTEN_PID") == str(os.getpid())
        super().__init__(path, Handler, bind_and_activate=not activated)
        if activated:
            self.socket.close()
            self.socket = socket.socket(fileno=ACTIVATED_FD)

    def connection_to(self, name: str) -> HTTPConnection:
        """To whom is asked for a name."""
        url = urlsplit(self._urls.get(name, f"https://{name}"))
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        return kind(url.hostname or name, url.port, timeout=PATIENCE_S)


def main(words: list[str]) -> None:
    """Serve until somebody ends it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--to", metavar="NAME=URL", action="append", default=[])
    parser.add_argument("socket")
    parser.add_argument("headers", metavar="NAME=FILE", nargs="+")
    given = parser.parse_args(words)
    headers: dict[str, tuple[str, str]] = {}
    for name, _, path in (each.partition("=") for each in given.headers):
        with open(path, encoding="utf-8") as file:
            key, _, value = file.readline().strip().partition(": ")
        headers[name] = key, value
    urls = {name: url for name, _, url in (each.partition("=") for each in given.to)}
    os.umask(0o077)  # whoever can connect to the socket has what the secrets give
    with suppress(FileNotFoundError):
        if "LISTEN_PID" not in os.environ:
            os.unlink(given.socket)
    with Broker(given.socket, headers, urls) as broker:
        print("ready", flush=True)
        broker.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
