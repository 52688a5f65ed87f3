"""GET / over one kept connection: HOST PORT COUNT."""

import http.client
import sys

connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    connection.request("GET", "/")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise SystemExit(f"{answer.status} {body[:80]!r}")
