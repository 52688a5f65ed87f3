"""What a fork is given: by the request, and as descriptors beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sentry.abi.limits import HOST_NAME_MAX
from sentry.control.descriptors import close_all
from sentry.errors import EINVAL

if TYPE_CHECKING:
    from sentry.control.orders import ForkOrder


class Given(NamedTuple):
    """The descriptors, in the order in which they come; the child's alone."""

    ram: int
    """An empty file for frames of its own, as large as its memory."""
    listener: int
    """For commands."""
    report: int
    """Connected stream socket to whoever wants it: see `Child`."""
    log: int
    null: int
    """/dev/null: what running commands write to."""
    silent: int
    """A pipe in which nothing comes: what they read."""
    silent_end: int
    """Its other end, which stays open."""
    place: int = -1
    """Of one that succeeds: connected stream socket to who gave up its place."""
    link: int = -1
    """Of one that has a network whose other end is its own."""
    network: int = -1
    """Of one that has a network process."""


PLAIN = len(Given._fields) - len(Given._field_defaults)


class Order(NamedTuple):
    """One child that is wanted."""

    asked: ForkOrder
    given: Given


def order(asked: ForkOrder | None, fds: list[int]) -> Order:
    """Raises: EINVAL; the descriptors are closed then."""
    further: list[str] = []
    if asked is not None:
        further += ["place"] * asked.succeeds + ["link"] * (asked.link is not None)
        further += ["network"] * asked.network
    if asked is None or len(fds) != PLAIN + len(further):
        close_all(fds)
        raise EINVAL(f"a fork has a name and {PLAIN + len(further)} descriptors")
    if len(asked.hostname) > HOST_NAME_MAX or b"\0" in asked.hostname:
        close_all(fds)
        raise EINVAL(f"a host name has at most {HOST_NAME_MAX} bytes")
    return Order(asked, Given(*fds[:PLAIN], **dict(zip(further, fds[PLAIN:], strict=True))))
