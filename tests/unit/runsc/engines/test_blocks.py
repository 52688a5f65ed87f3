from __future__ import annotations

import pytest

from runsc.engines import blocks
from runsc.engines.settings import SettingsError


def test_a_block_goes_in_and_out() -> None:
    text = "a = 1\n# end of it\n"

    with_it = blocks.put(text, "x", ["b = 2"], 1)

    assert blocks.document(with_it) == {"a": 1, "b": 2}
    assert blocks.cut(with_it, "y") == with_it
    assert blocks.cut(with_it, "x") == text


def test_half_a_block_is_nobodys() -> None:
    half = f"{blocks.begin('x')}\na = 1\n"
    turned = f"{blocks.end('x')}\n{half}"

    assert blocks.cut(half, "x") == half
    assert blocks.cut(turned, "x") == turned


def test_a_change_of_something_else_is_no_change() -> None:
    assert blocks.prove("a = 1\n", "a = 1\n[b]\nc = 2\n", ("b", "c"), 2)
    for after in ("a = 2\n[b]\nc = 2\n", "a = 1\n[b]\nc = 3\n", "[b]\nc = 2\n", "a = \n"):
        with pytest.raises(SettingsError):
            blocks.prove("a = 1\n", after, ("b", "c"), 2)
