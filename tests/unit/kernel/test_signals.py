"""Queues of signals, their ceilings, and tables of actions."""

from __future__ import annotations

from sentry.abi.signal import SIGCHLD, SIGHUP, SIGSEGV, SIGTERM, SIGUSR1
from sentry.kernel.signals import (
    MAX_QUEUED,
    Action,
    PendingSignals,
    Queued,
    Quota,
    SigInfo,
    SignalActions,
    mask_of,
)

EVERY = (1 << 64) - 1
RT = 40


def queued(signo: int, value: int = 0) -> Queued:
    return Queued(SigInfo.queue(signo, -1, 1, 0, value))


def test_take_prefers_exceptions_then_low_numbers() -> None:
    pending = PendingSignals()
    for signo in (RT, SIGTERM, SIGHUP, SIGSEGV):
        pending.add(queued(signo))
    order = [pending.take(EVERY) for _ in range(4)]
    assert [e.info.signo for e in order if e] == [SIGSEGV, SIGHUP, SIGTERM, RT]
    assert pending.take(EVERY) is None
    assert pending.mask == 0


def test_take_of_real_time_signals_is_first_in_first_out() -> None:
    pending = PendingSignals()
    for value in (3, 1, 2):
        pending.add(queued(RT, value))
    taken = [pending.take(EVERY) for _ in range(3)]
    assert [e.info.body[8] for e in taken if e] == [3, 1, 2]


def test_take_leaves_what_is_not_wanted() -> None:
    pending = PendingSignals()
    pending.add(queued(SIGTERM))
    assert pending.take(EVERY & ~mask_of([SIGTERM])) is None
    assert SIGTERM in pending


def test_bare_signal_is_taken_without_details() -> None:
    pending = PendingSignals()
    pending.add_bare(SIGUSR1)
    entry = pending.take(EVERY)
    assert entry is not None
    assert (entry.info.signo, entry.info.code) == (SIGUSR1, 0)
    assert pending.mask == 0


def test_quota_is_given_back_when_taken_or_discarded() -> None:
    quota, pending = Quota(), PendingSignals()
    for signo in (RT, RT, SIGUSR1):
        assert quota.take(1000, 3)
        pending.add(Queued(SigInfo.user(signo, 1, 0), False, quota, 1000))
    assert not quota.take(1000, 3)
    assert quota.take(1001, 3)
    pending.take(EVERY)
    pending.discard(EVERY)
    assert quota.of(1000) == 0


def test_quota_has_a_ceiling_for_everybody() -> None:
    quota = Quota()
    for _ in range(MAX_QUEUED):
        assert quota.take(0, 1 << 64)
    assert not quota.take(0, 1 << 64, override=True)


def test_put_back_is_the_next_of_its_number() -> None:
    pending = PendingSignals()
    pending.add(queued(RT, 1))
    pending.add(queued(RT, 2))
    first = pending.take(EVERY)
    assert first is not None
    pending.put_back(first)
    again = pending.take(EVERY)
    assert again is not None
    assert again.info.body[8] == 1


def test_exec_keeps_ignored_signals_only() -> None:
    actions = SignalActions()
    actions[SIGTERM] = Action(0x1000, 7, 8, 9)
    actions[SIGHUP] = Action(1, 0, 0, 5)
    after = actions.reset_for_exec()
    assert after[SIGTERM] == Action(0, 0, 0, 0)
    assert after[SIGHUP].handler == 1
    assert actions[SIGTERM].handler == 0x1000


def test_actions_say_what_does_nothing() -> None:
    actions = SignalActions()
    assert actions.ignores(SIGCHLD)
    assert not actions.ignores(SIGTERM)
    assert actions.is_fatal(SIGTERM)
    assert not actions.is_fatal(SIGCHLD)
    actions[SIGCHLD] = Action(0x1000, 0, 0, 0)
    assert not actions.ignores(SIGCHLD)


def test_siginfo_has_linux_layout() -> None:
    data = SigInfo.queue(RT, -1, 77, 1000, 0x1122334455667788).pack()
    assert len(data) == 128
    assert data[:12] == b"\x28\0\0\0\0\0\0\0\xff\xff\xff\xff"
    assert data[16:32] == b"\x4d\0\0\0\xe8\x03\0\0\x88\x77\x66\x55\x44\x33\x22\x11"
    assert SigInfo.raw(RT, data).pack() == data
