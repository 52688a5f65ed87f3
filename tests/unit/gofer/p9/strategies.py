"""Hypothesis strategies for 9P messages, derived from their declarations."""

from __future__ import annotations

from hypothesis import strategies as st

import gofer.p9.extensions
import gofer.p9.messages  # noqa: F401  (both register their messages)
from gofer.p9.codec import MESSAGES, Message
from gofer.p9.constants import MAX_SPARES, MAX_WALK
from gofer.p9.fields import ATTR_SIZE, Qid


def _unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


_QID = st.builds(Qid, _unsigned(8), _unsigned(32), _unsigned(64))
_BLOCK = st.binary(min_size=ATTR_SIZE, max_size=ATTR_SIZE)
KINDS: dict[str, st.SearchStrategy[object]] = {
    "U8": _unsigned(8),
    "U16": _unsigned(16),
    "U32": _unsigned(32),
    "U64": _unsigned(64),
    "I64": st.integers(-(1 << 63), (1 << 63) - 1),
    "QidField": _QID,
    "AttrBlock": _BLOCK,
    "Str": st.binary(max_size=300),
    "Data": st.binary(max_size=300),
    "Names": st.lists(st.binary(max_size=20), max_size=MAX_WALK),
    "Fids": st.lists(_unsigned(32), max_size=MAX_SPARES),
    "Qids": st.lists(_QID, max_size=MAX_WALK),
    "AttrBlocks": st.lists(_BLOCK, max_size=MAX_SPARES),
}


def message_of(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Any message of one type."""
    return st.builds(cls, **{name: KINDS[kind] for name, kind in cls.fields.items()})


def messages() -> st.SearchStrategy[Message]:
    """Any message."""
    return st.sampled_from(sorted(MESSAGES.values(), key=lambda cls: cls.type)).flatmap(message_of)


def requests() -> st.SearchStrategy[Message]:
    """Any request (their numbers are even)."""
    kinds = [cls for number, cls in sorted(MESSAGES.items()) if number % 2 == 0]
    return st.sampled_from(kinds).flatmap(message_of)
