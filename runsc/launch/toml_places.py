"""In which line of a policy something is wrong.

The decoder tells the place of what is no TOML. Of what is no policy its checks tell the rule and
the field; here that is looked for in the text, by keys at the beginning of lines, as people write
them. Where none is found nothing is said.
"""

from __future__ import annotations

import re
from typing import Final

_RULE: Final = re.compile(r"\brule (\d+)\b|\$\.rule\[(\d+)\]")
"""As people count, or from 0 on in a path."""
_CHAIN: Final = re.compile(r"(?:[\w .\[\]]+: )*")
"""Fields that a message begins with, the innermost last."""
_HEADER: Final = re.compile(r"\s*\[\[?\s*([\w.]+)\s*\]")
_KEY: Final = re.compile(r"\s*[\"']?(\w+)[\"']?\s*[.=]")


def placed(text: str, message: str) -> str:
    """The message with the line of `text` in front, if it is about one that is found."""
    named = _RULE.search(message)
    rule = 0 if named is None else int(named[1] or int(named[2]) + 1)
    keys, begins = _keys(text, rule)
    chain = re.findall(r"\w+", _CHAIN.match(message)[0])  # type: ignore[index] # fits everything
    first = [one or other for one, other in re.findall(r"`(\w+)`|(\w+) = ", message)]
    words = *first, *reversed(chain), *re.findall(r"\w+", message)
    line = next((keys[word] for word in words if word in keys), begins)
    return f"line {line}: {message}" if line else message


def _keys(text: str, wanted: int) -> tuple[dict[str, int], int]:
    """Of a rule by its number, or of what is in none (0): in which line each key and each table is
    for the first time; and where the rule begins, 0 for none."""
    found: dict[str, int] = {}
    begins = rule = count = 0
    for number, line in enumerate(text.split("\n"), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        name = header[1] if header is not None else ""
        if name == "rule":
            rule = count = count + 1
            begins = number if rule == wanted else begins
            continue
        if name and not name.startswith("rule."):
            rule = 0
        named = name.rpartition(".")[2] or (key[1] if key is not None else "")
        if named and rule == wanted:
            found.setdefault(named, number)
    return found, begins
