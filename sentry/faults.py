"""A rule about faults, as it is given."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

GOFER: Final = "gofer"
NETWORK: Final = "network"
MAX_RULES: Final = 256
MAX_DELAY_NS: Final = 3600 * 10**9
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=512)]
Patterns = Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]


class InjectRule(msgspec.Struct, omit_defaults=True, frozen=True, forbid_unknown_fields=True):
    """What is wrong with some calls. The first rule that is for a call is the one."""

    calls: Names
    """System calls by their names; or "gofer", or "network" alone."""
    errno: str = ""
    """They fail so."""
    short: Annotated[int, msgspec.Meta(ge=-1, le=(1 << 31) - 1)] = -1
    """They read or write so many bytes at most; -1: as they would."""
    delay_ns: Annotated[int, msgspec.Meta(ge=0, le=MAX_DELAY_NS)] = 0
    """They begin so much later."""
    drop: bool = False
    """network: the frame is lost."""
    reorder: bool = False
    """network: the frame comes after the next one."""
    direction: str = ""
    """network: "in", "out", or both."""
    paths: Patterns = ()
    """Only of these files: * is for all but a slash, ** for all; links are not followed."""
    programs: Patterns = ()
    """Only by these programs, by path."""
    after: Count = 0
    """So many that fit go by first."""
    count: Count = 0
    """So often at most; 0: ever again."""
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: Count = 0
    """The same ones for the same seed."""


class InjectState(msgspec.Struct, omit_defaults=True, frozen=True):
    """A rule and what came of it."""

    rule: InjectRule
    fitted: int = 0
    """Calls that fit."""
    injected: int = 0
    """Of them with a fault."""
