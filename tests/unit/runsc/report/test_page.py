"""The page: everything escaped, nothing loaded, bounded."""

from __future__ import annotations

from contextlib import suppress
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsc.report.page import PICTURES, SECTIONS, page, picture
from runsc.report.summary import MAX_PROCESSES
from runsc.report.tree import html, svg
from sentry.watch import messages as m
from sentry.watch.messages import MessageType as Type
from tests.unit.runsc.report.recordings import MARKUP, opened, run, sample, summed, told, who

ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "dl", "dt", "dd",
           "div", "section", "table", "thead", "tbody", "tr", "td", "th", "svg", "text", "rect",
           "line", "polyline"}  # fmt: skip
MAX_PAGE = 2 << 20


class _Read(HTMLParser):
    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile() -> list[bytes]:
    name = m.ContextData(who(1).time_ns, 1, 0, 1, process_name=MARKUP)
    return [
        told(Type.CONTAINER_START, m.Start(name, MARKUP, "/", [MARKUP, MARKUP])),
        told(Type.SENTRY_EXEC, m.ExecveInfo(name, MARKUP, [MARKUP])),
        opened(2, MARKUP),
        told(Type.OWN_EGRESS_DENIED, m.Egress(name, MARKUP, [MARKUP], MARKUP, 6, 1, 1, MARKUP)),
        told(Type.OWN_OUT_OF_MEMORY, m.OutOfMemory(name, 5, MARKUP)),
        told(Type.SYSCALL_CONNECT, m.Connect(
            name, m.Exit(), 42, 3, "", b"\x01\0" + MARKUP.encode())),
        sample(5),
    ]  # fmt: skip


def test_the_page_shows_each_section() -> None:
    read = _Read(html(page(summed(run()), "web")))
    for heading in SECTIONS:
        assert heading in read.texts
    for text in ("cat /etc/none", "/tmp/out", "127.0.0.1:80", "ECONNREFUSED 1", "read",
                 "exit code 1", "tcp 10.0.0.1:80 x.org rule 1"):  # fmt: skip
        assert text in read.texts


def test_nothing_of_a_recording_is_markup() -> None:
    read = _Read(html(page(summed(hostile()), MARKUP)))
    assert read.tags <= ALLOWED
    assert not any(name.startswith("on") or name in ("src", "href") for name in read.attributes)
    assert sum(text.count("alert(1)") for text in read.texts) >= 8


def test_a_page_of_a_hostile_recording_is_bounded() -> None:
    files = [opened(n, f"/{n}" + "<&" * 2000, pid=n % 3000 + 1) for n in range(20_000)]
    made = html(page(summed([*files, *hostile()]), "x" * 10_000))
    assert len(made) < MAX_PAGE
    assert "4700 more" in made.decode()


def test_an_empty_recording_is_a_page() -> None:
    assert b"<h1>nothing</h1>" in html(page(summed([]), "nothing"))


def test_how_many_are_not_kept_is_not_made_up() -> None:
    """One more process than there is room for, which is met ten times, is one and not ten."""
    many = [opened(n, "/x", pid=n + 1) for n in range(MAX_PROCESSES)]
    texts = _Read(html(page(summed([*many, *[opened(1, "/y", pid=9999)] * 10]), "x"))).texts
    assert texts[texts.index("Processes") + 1] == "more than 2k"
    assert "10 times more processes were met, which are not kept." in texts
    assert texts[texts.index("Files opened") + 1] == "2"


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_stands_alone(name: str) -> None:
    drawn = picture(summed(run()), name)
    assert drawn is not None
    assert svg(drawn).startswith(b"<svg ")
    assert picture(summed([]), name) is None


@given(st.integers(0, len(run()) - 1), st.integers(0), st.binary(min_size=1, max_size=8))
def test_a_damaged_message_is_an_error_or_on_the_page(which: int, at: int, data: bytes) -> None:
    messages = run()
    broken = bytearray(messages[which])
    at %= len(broken)
    broken[at : at + len(data)] = data
    made = summed(messages)
    with suppress(ValueError):
        made.add(bytes(broken))
    read = _Read(html(page(made, "web")))
    assert read.tags <= ALLOWED
