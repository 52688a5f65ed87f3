"""Texts in a tree are texts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from runsc.report.tree import MAX_SHOWN, element, html, shown, svg
from tests.unit.runsc.report.recordings import MARKUP


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.read: list[object] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.read.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.read.append(data)


def test_markup_in_texts_and_attributes_is_read_as_it_was_written() -> None:
    made = html(element("p", MARKUP, element("b", MARKUP), MARKUP, title=MARKUP)).decode()
    parser = _Parser()
    parser.feed(made)
    said = [each for each in parser.read if each != "\n"]
    assert said == [("p", [("title", MARKUP)]), MARKUP, ("b", []), MARKUP, MARKUP]


def test_a_picture_is_xml_that_means_the_same() -> None:
    read = ET.fromstring(svg(element("svg", element("text", MARKUP), width=3)))
    assert (read[0].text, read.get("width")) == (MARKUP, "3")


def test_a_text_is_one_line_that_is_not_too_long_and_moves_nothing() -> None:
    assert shown("a\nb\x1b[2J\u202ec\td") == "a?b?[2J?c d"
    assert len(shown("x" * 5000)) == MAX_SHOWN
