"""A document as a tree: every text in it is escaped where the tree becomes bytes.

No template is filled in and no text is put beside another one, so nothing that a program inside
has named can be markup. What could move a terminal, or turn writing around, is a question mark.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Final

from runsc.log import printable

MAX_SHOWN: Final = 200
"""Characters of one text."""
SVG: Final = "http://www.w3.org/2000/svg"
Element = ET.Element


def element(tag: str, *children: Element | str, **attributes: str | float) -> Element:
    """With these children. Names of attributes: `class_` is class, `stroke_width` stroke-width."""
    made = ET.Element(tag)
    for name, value in attributes.items():
        text = f"{value:g}" if isinstance(value, float) else str(value)
        made.set(name.rstrip("_").replace("_", "-"), text)
    return add(made, *children)


def add(parent: Element, *children: Element | str) -> Element:
    """More of them; the parent."""
    for child in children:
        if isinstance(child, ET.Element):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + printable(child)
        else:
            parent.text = (parent.text or "") + printable(child)
    return parent


def shown(text: str, most: int = MAX_SHOWN) -> str:
    """A text of the sandbox: one line, not too long."""
    line = printable(text).replace("\n", "?").replace("\t", " ")
    return line if len(line) <= most else line[: most - 1] + "…"


def html(page: Element) -> bytes:
    """The bytes of a page."""
    made = ET.tostring(page, encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{made}\n".encode()


def svg(picture: Element) -> bytes:
    """The bytes of a picture by itself."""
    picture.set("xmlns", SVG)
    made = ET.tostring(picture, encoding="unicode")
    return f"{made}\n".encode()
