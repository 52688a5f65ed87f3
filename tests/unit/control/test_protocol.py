"""Lines between the command line and a sandbox."""

from __future__ import annotations

from sentry.control.protocol import Event, Reply, decode, encode

NO_TEXT = b"/a\xff".decode(errors="surrogateescape")


def test_error_that_names_what_is_no_text_is_told_nevertheless() -> None:
    reply = decode(encode(Reply(error=f"no such file: {NO_TEXT}")), Reply)
    event = decode(encode(Event("error", f"cannot restore: {NO_TEXT}")), Event)

    assert reply.error == r"no such file: /a\udcff"
    assert event.message == r"cannot restore: /a\udcff"
