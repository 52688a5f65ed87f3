"""Values without identity come back as they were, or as Linux lets them be."""

from __future__ import annotations

from sentry.auth.credentials import ALL_CAPS, Credentials
from sentry.config import ContainerConfig, ProcessConfig
from sentry.kernel.limits import Limits
from sentry.kernel.signals import Action, PendingSignals, Queued, Quota, SigInfo, SignalActions
from sentry.kernel.thread_group import Usage
from sentry.state import records, values
from sentry.state.rights import Rights

RIGHTS = Rights(ContainerConfig("", ProcessConfig((b"",))), Credentials.root())


def test_credentials_come_back_without_capabilities_that_there_are_not() -> None:
    creds = Credentials(1, 2, 3, 4, 5, 6, 7, 8, (9, 10), effective=5, securebits=16)
    record = values.credentials(creds)
    assert values.made_credentials(record) == creds
    wild = records.Credentials(record.ids, effective=records.U64)
    assert values.made_credentials(wild).effective == ALL_CAPS


def test_limits_come_back_and_are_below_their_ceilings() -> None:
    limits = Limits()
    limits.set(7, 10, 20)
    again = values.made_limits(values.resource_limits(limits), RIGHTS)
    assert (again.soft(7), again.hard(7)) == (10, 20)
    assert values.made_limits([records.Limit(9, 3)], RIGHTS).soft(0) == 3


def test_handlers_come_back_but_for_those_that_nobody_may_have() -> None:
    actions = SignalActions()
    actions[10] = Action(0x1000, 4, 0x2000, 6)
    again = values.made_actions(values.handlers(actions))
    assert again[10] == actions[10] and again[11] == actions[11]
    hostile = [records.Handler(9, 0x1000, 0, 0, 0), records.Handler(0, 1, 1, 1, 1)]
    assert values.made_actions(hostile)[9] == SignalActions()[9]


def test_waiting_signals_come_back_with_their_details_and_count() -> None:
    pending, again, quota = PendingSignals(), PendingSignals(), Quota()
    pending.add(Queued(SigInfo.user(10, 5, 6)))
    pending.add(Queued(SigInfo.queue(40, -1, 7, 8, 9)))
    pending.add_bare(12)
    pending.add(Queued(SigInfo.timer(14, 1, 2, 3), on_taken=lambda info: info))
    values.made_waiting(values.waiting(pending), again, quota, 1000)
    assert again.mask == pending.mask & ~(1 << 13)
    assert [info.pack() for info in again.infos()] == [
        info.pack() for info in pending.infos() if info.signo != 14
    ]
    assert quota.of(1000) == 2
    assert again.take(1 << 9) is not None and quota.of(1000) == 1


def test_usage_counts_what_is_known() -> None:
    used, again = Usage(), Usage()
    used.wchar, used.minflt = 5, 7
    values.made_usage(values.usage(used), again)
    assert (again.wchar, again.minflt, again.rchar) == (5, 7, 0)
    values.made_usage(records.Usage({"__class__": 1}), again)
    assert type(again) is Usage
