"""Routes among others: ceilings, and how long it takes where there are as many as may be."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET
from sentry.errors import ENOBUFS
from sentry.net.route_changes import insert
from sentry.net.routes import MAX_HOPS, MAX_ROUTES, Hop, Route, Routes

NET = b"\x0a\0\0\0"
APPEND = abi.NLM_F_CREATE | abi.NLM_F_APPEND


def _stack() -> Any:
    nowhere: Any = []
    return SimpleNamespace(routes=Routes(nowhere))


def _by(number: int, hops: int = 0, metric: int = 0) -> Route:
    ways = tuple(Hop(2, each.to_bytes(4)) for each in range(hops))
    return Route(AF_INET, NET, 8, 2, gateway=number.to_bytes(4), hops=ways, metric=metric)


def test_one_more_of_a_place_with_thousands_takes_no_time() -> None:
    stack = _stack()
    stack.routes.added = [_by(number) for number in range(MAX_ROUTES - 1)]
    begun_ns = time.thread_time_ns()
    insert(stack, _by(MAX_ROUTES), APPEND)
    assert time.thread_time_ns() - begun_ns < 200_000_000
    assert stack.routes.added[-1] == _by(MAX_ROUTES)


def test_next_hops_have_a_ceiling_however_they_come() -> None:
    stack = _stack()
    stack.routes.added = [_by(1, 2, metric) for metric in range(MAX_ROUTES // 2)]
    with pytest.raises(ENOBUFS):
        insert(stack, _by(1, MAX_HOPS), abi.NLM_F_REPLACE)
    insert(stack, _by(2), abi.NLM_F_REPLACE)
    assert stack.routes.added[0] == _by(2)
