"""Which groups the routers and switches of a link are told of: what IGMP and MLD have in common.

RFC 3376 and RFC 3810, for a host that excludes no sources, and the older versions (RFC 2236, 2710)
while a querier of one is there. Sans-io: `announce` sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sentry.abi.socket import (
    MLD2_CHANGE_TO_EXCLUDE,
    MLD2_CHANGE_TO_INCLUDE,
    MLD2_MODE_IS_EXCLUDE,
)
from sentry.net.deadlines import Deadlines

SECOND_NS: Final = 1_000_000_000
MOST_GROUPS: Final = 1024
"""Of a link, that anybody is told of: a ceiling of ours."""
UNSOLICITED_NS: Final = SECOND_NS
"""Within it a change is told again."""
ROBUSTNESS: Final = 2
"""So often a change is told."""
OLDER_NS: Final = 260 * SECOND_NS
"""So long a querier of an older version counts: RFC 3376, 8.12."""
AT_ONCE: Final = 64
"""Groups that are told of in a step."""
GENERAL: Final = b""


class Record(NamedTuple):
    """One group in a report; the kinds of MLD are those of IGMP."""

    kind: int
    group: bytes

    @property
    def is_left(self) -> bool:
        """Nobody here is a member any more."""
        return self.kind == MLD2_CHANGE_TO_INCLUDE


Announce = Callable[[int, bool, list[Record]], None]


class Membership:
    """Of one link and family."""

    def __init__(
        self,
        chance: Callable[[int], bytes],
        announce: Announce,
        standing: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        """`announce(now_ns, is_older, records)` sends; `standing`: groups that nobody has joined,
        and that are told of when somebody asks."""
        self._chance = chance
        self._announce = announce
        self._standing = standing
        self._groups: dict[bytes, None] = {}
        self._again: Deadlines[bytes] = Deadlines()
        """Changes that are told once more, and answers, by group; GENERAL: all of them."""
        self._records: dict[bytes, Record] = {}
        self._older_until_ns = 0

    def joined(self, now_ns: int, group: bytes) -> None:
        """Somebody is a member now."""
        if len(self._groups) < MOST_GROUPS:
            self._groups[group] = None
            self._change(now_ns, Record(MLD2_CHANGE_TO_EXCLUDE, group))

    def left(self, now_ns: int, group: bytes) -> None:
        """Nobody is any more."""
        if group in self._groups:
            del self._groups[group]
            self._change(now_ns, Record(MLD2_CHANGE_TO_INCLUDE, group))

    def _change(self, now_ns: int, record: Record) -> None:
        is_older = now_ns < self._older_until_ns
        self._announce(now_ns, is_older, [record])
        self._again.drop(record.group)
        if len(self._records) < 2 * MOST_GROUPS and not (is_older and record.is_left):
            self._later(record, now_ns, UNSOLICITED_NS)

    def _later(self, record: Record, now_ns: int, most_ns: int) -> None:
        self._records[record.group] = record
        self._again.set(record.group, now_ns + self._random(most_ns))

    def _random(self, most_ns: int) -> int:
        return int.from_bytes(self._chance(4)) * most_ns >> 32

    def asked(self, now_ns: int, group: bytes, most_ns: int, *, is_older: bool) -> None:
        """A query has come, of one group or of all (GENERAL): the answer has so much time."""
        if is_older:
            self._older_until_ns = now_ns + OLDER_NS
        if group != GENERAL and group not in self._all():
            return
        if group not in self._records:
            self._later(Record(MLD2_MODE_IS_EXCLUDE, group), now_ns, most_ns)

    def _all(self) -> dict[bytes, None]:
        return self._groups | dict.fromkeys(self._standing())

    def timer(self) -> int | None:
        """When `timeout` is to be called, in ns."""
        return self._again.first_ns()

    def timeout(self, now_ns: int) -> None:
        """What is due, a bounded number of groups."""
        is_older = now_ns < self._older_until_ns
        found: list[Record] = []
        while len(found) < AT_ONCE and (group := self._again.take_due(now_ns)) is not None:
            record = self._records.pop(group)
            if group == GENERAL:
                found += (Record(MLD2_MODE_IS_EXCLUDE, each) for each in self._all())
            else:
                found.append(record)
        if found:
            self._announce(now_ns, is_older, found)
