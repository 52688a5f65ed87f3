"""A web server each of whose requests is answered by a fresh copy of a warm application.

    python3 examples/warm_server/warm_server.py --root ROOT [--port PORT] [--app FILE]

FILE has an application of WSGI. It is started once, in a sandbox, and stands still when it is
ready; a request goes to a fork of it, which ends with the answer. So nothing of one visitor is
there for the next one, whatever the first has done to the process, and nobody waits for a start.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from runsc import Limits, Sandbox, SandboxError, Template

APP = Path(__file__).with_name("app.py")
LOOP = """
import base64, io, json, os, sys
names = {'__name__': 'app'}
exec(compile(sys.argv[1], 'app.py', 'exec'), names)
answers = os.fdopen(os.dup(1), 'w')
print('ready', flush=True)
os.dup2(2, 1)
request = json.loads(sys.stdin.readline())
body = base64.b64decode(request.pop('body'))
head = []
environ = {'wsgi.version': (1, 0), 'wsgi.url_scheme': 'http', 'wsgi.input': io.BytesIO(body),
           'wsgi.errors': sys.stderr, 'wsgi.multithread': False, 'wsgi.multiprocess': True,
           'wsgi.run_once': True, 'CONTENT_LENGTH': str(len(body)), **request}
made = names['application'](environ, lambda *words: head.extend(words[:2]))
body = base64.b64encode(b''.join(made)).decode()
answers.write(json.dumps({'status': head[0], 'headers': head[1], 'body': body}))
"""
MOST = 1 << 20
"""Bytes of a request's body, and of an answer on its way."""
SIZE = re.compile("[0-9]{1,8}")
STATUS = re.compile(r"([2-5]\d\d) [ -~]*")
HEADER = re.compile(r"[A-Za-z0-9-]+")
VALUE = re.compile(r"[ -~]*")
OURS = {"connection", "content-length", "transfer-encoding", "date", "server"}
LIMITS = Limits(memory=256 << 20, processes=16)


class Warm:
    """An application that stands still. Requests may come from many threads."""

    def __init__(self, source: str, *, seconds: float = 10.0, **options: Any) -> None:
        """`seconds`: for an answer; `options`: of `Sandbox.create`."""
        self._seconds = seconds
        self._sandbox = Sandbox.create(forkable=True, **options)
        try:
            self._app = self._sandbox.commands.run(
                ["python3", "-c", LOOP, source], background=True, user="65534:65534", limits=LIMITS
            )
            if not self._app.stdout.read().startswith(b"ready"):
                raise SandboxError("the application does not start")
            self._template = Template.of(self._sandbox)
        except BaseException:
            self._sandbox.kill()
            raise
        self._at_once = threading.Semaphore(16)

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._template.kill()
        self._app.close()

    def answer(self, request: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body. Raises: SandboxError, ValueError: what came is no answer."""
        with self._at_once:
            fork = self._template.fork(timeout=self._seconds)[0]
            try:
                with fork.commands.connect(self._app.pid) as app:
                    app.send_stdin(json.dumps(request) + "\n")
                    said = bytearray()
                    for piece in app.stdout:
                        said += piece
                        if len(said) > MOST:
                            raise ValueError("the answer is too long")
            finally:
                fork.kill()
        if not said:
            raise ValueError("the application has ended without an answer")
        return _checked(json.loads(said))


def _checked(made: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Who answers may have been taken over by who asks."""
    try:
        status = STATUS.fullmatch(made["status"])
        headers = [(str(name), str(value)) for name, value in made["headers"]]
        body = base64.b64decode(made["body"], validate=True)
    except (KeyError, TypeError) as error:
        raise ValueError("no answer of an application") from error
    if status is None or not all(
        HEADER.fullmatch(name) and VALUE.fullmatch(value) for name, value in headers
    ):
        raise ValueError("no status, or a header that is none")
    kept = [(name, value) for name, value in headers if name.lower() not in OURS]
    return int(status[1]), kept, body


class Handler(BaseHTTPRequestHandler):
    """A connection of a visitor."""

    server: Server
    timeout = 30
    """Seconds that it may say nothing."""

    def forward(self) -> None:
        """To a fork, and back."""
        size = self.headers.get("Content-Length", "0")
        known = SIZE.fullmatch(size) is not None and int(size) <= MOST
        if not known or "Transfer-Encoding" in self.headers:
            self.send_error(413)
            return
        path, _, query = self.path.partition("?")
        request = {
            "REQUEST_METHOD": self.command, "SCRIPT_NAME": "", "PATH_INFO": path,
            "QUERY_STRING": query, "SERVER_NAME": "localhost", "SERVER_PORT": "80",
            "SERVER_PROTOCOL": self.request_version, "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "body": base64.b64encode(self.rfile.read(int(size))).decode(),
        } | {f"HTTP_{name.upper().replace('-', '_')}": text for name, text in self.headers.items()}
        try:
            status, headers, body = self.server.warm.answer(request)
        except (SandboxError, ValueError, RecursionError, BrokenPipeError) as error:
            print(ascii(str(error))[1:-1], file=sys.stderr)
            self.send_error(502)
            return
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = forward

    def log_message(self, text: str, *values: Any) -> None:
        """Nothing: who visits is nobody's affair."""


class Server(ThreadingHTTPServer):
    """Listens to this machine alone."""

    def __init__(self, port: int, warm: Warm) -> None:
        self.warm = warm
        super().__init__(("127.0.0.1", port), Handler)


def main() -> int:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with Python in it; the host's own files else")
    parser.add_argument("--app", type=Path, default=APP)
    parser.add_argument("--port", type=int, default=0, help="any, if none is named")
    parser.add_argument("--while", dest="command", help="as long as this runs, with $URL; for ever")
    given = parser.parse_args()
    with Warm(given.app.read_text(), root=given.root) as warm, Server(given.port, warm) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        if given.command is None:
            print(url, flush=True)
            server.serve_forever()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = subprocess.run(
            given.command, shell=True, check=False, env=os.environ | {"URL": url}
        ).returncode
        server.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
