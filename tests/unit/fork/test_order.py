from __future__ import annotations

import os

import pytest

from sentry.config import LinkConfig
from sentry.control.orders import ForkOrder
from sentry.errors import EINVAL
from sentry.fork.order import PLAIN, order

COUNT = PLAIN


def _pipes(count: int) -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]


def test_an_order_has_a_name_for_each_descriptor() -> None:
    fds = _pipes(COUNT)
    made = order(ForkOrder(b"copy"), fds)

    assert made.asked.hostname == b"copy"
    assert [made.given.ram, made.given.silent_end, made.given.place] == [fds[0], fds[-1], -1]
    for fd in fds:
        os.close(fd)


def test_one_that_goes_on_in_a_place_has_a_way_to_who_was_there() -> None:
    fds = _pipes(COUNT + 1)
    assert order(ForkOrder(succeeds=True), fds).given.place == fds[-1]
    for fd in fds:
        os.close(fd)
    with pytest.raises(EINVAL):
        order(ForkOrder(succeeds=True), _pipes(COUNT))


def test_one_that_has_a_network_has_a_way_to_it() -> None:
    fds = _pipes(COUNT + 1)
    made = order(ForkOrder(link=LinkConfig(-1, 1500)), fds)
    assert (made.given.place, made.given.link) == (-1, fds[-1])
    made = order(ForkOrder(succeeds=True, network=True), [*fds, fds[0]])
    assert made.given[-3:] == (fds[-1], -1, fds[0])
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("count", [0, 1, COUNT - 1, COUNT + 1, 60])
def test_too_few_or_too_many_descriptors_are_refused_and_closed(count: int) -> None:
    fds = _pipes(count)
    with pytest.raises(EINVAL):
        order(ForkOrder(), fds)
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


@pytest.mark.parametrize("name", [b"n" * 65, b"a\0b"])
def test_a_name_that_no_host_can_have_is_refused(name: bytes) -> None:
    fds = _pipes(COUNT)
    with pytest.raises(EINVAL, match="host name"):
        order(ForkOrder(name), fds)
    with pytest.raises(OSError):
        os.fstat(fds[0])


def test_an_order_without_words_is_refused() -> None:
    fds = _pipes(COUNT)
    with pytest.raises(EINVAL):
        order(None, fds)
    with pytest.raises(OSError):
        os.fstat(fds[0])
