"""JSON for what every command imports: CPython's own scanner and encoder, without `json`.

That module, and `re` below it, cost a command more than all that it does; their C half is in the
interpreter.
"""

from __future__ import annotations

from _json import encode_basestring as quoted
from _json import make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "loads", "quoted"]

WHITE = " \t\n\r"


class _Terms:
    """What a scanner is made from."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


_scan = make_scanner(_Terms)  # type: ignore[arg-type]


def loads(data: bytes) -> Any:
    """The value of a document. Raises: ValueError."""
    text = data.decode()
    at = len(text) - len(text.lstrip(WHITE))
    try:
        value, end = _scan(text, at)
    except StopIteration:
        raise ValueError("no JSON") from None
    except RecursionError:
        raise ValueError("too deep") from None
    if text[end:].strip(WHITE):
        raise ValueError(f"more behind the value, at {end}")
    return value


def dumps(value: object) -> bytes:
    """One line without spaces. Preconditions: texts, numbers, truth values, lists, mappings."""
    encode = make_encoder(None, _refuse, quoted, None, ":", ",", False, False, True)
    return "".join(encode(value, 0)).encode()


def _refuse(value: object) -> object:
    raise TypeError(f"{value!r}")
