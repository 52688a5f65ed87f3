"""An application (WSGI) that takes long to start, forgets nothing, and believes its visitors."""

from __future__ import annotations

from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

PRIMES = [n for n in range(2, 100_000) if all(n % k for k in range(2, int(n**0.5) + 1))]
visits = 0


def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Evaluates whatever it is asked."""
    global visits  # noqa: PLW0603  that is the point
    visits += 1
    asked = parse_qs(environ["QUERY_STRING"]).get("ask", ["len(PRIMES)"])[0]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"visit {visits}: {eval(asked)}\n".encode()]
