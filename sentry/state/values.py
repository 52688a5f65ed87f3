"""Values without identity, as records and back: credentials, limits, handlers, signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.auth.credentials import ALL_CAPS
from sentry.auth.credentials import Credentials as Creds
from sentry.kernel.limits import Limits
from sentry.kernel.signals import (
    DEFAULT_ACTION,
    NSIG,
    UNBLOCKABLE,
    Action,
    PendingSignals,
    Queued,
    SigInfo,
    SignalActions,
)
from sentry.kernel.thread_group import SUMS, Usage
from sentry.state import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.auth.userns import UserNamespace
    from sentry.kernel.signals import Quota
    from sentry.state.rights import Rights

_IDS: Final = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
_SETS: Final = ("effective", "permitted", "inheritable", "bounding", "ambient")


def credentials(creds: Creds, user_ns: int | None = None) -> records.Credentials:
    """`user_ns`: the place of its namespace."""
    ids = tuple(getattr(creds, name) for name in _IDS)
    sets = {name: getattr(creds, name) for name in _SETS}
    return records.Credentials(
        ids, list(creds.groups), securebits=creds.securebits, user_ns=user_ns, **sets
    )


def made_credentials(
    record: records.Credentials, user_ns: UserNamespace | None = None
) -> Creds:
    """Capabilities that there are."""
    ids: dict[str, Any] = dict(zip(_IDS, record.ids, strict=True))
    sets: dict[str, Any] = {name: getattr(record, name) & ALL_CAPS for name in _SETS}
    groups = tuple(sorted(record.groups))
    return Creds(groups=groups, securebits=record.securebits, user_ns=user_ns, **ids, **sets)


def resource_limits(limits: Limits) -> list[records.Limit]:
    """By resource."""
    return [records.Limit(soft, hard) for soft, hard in limits._values]


def made_limits(found: Sequence[records.Limit], rights: Rights) -> Limits:
    """As many as there are resources; the soft limit is no higher than the hard one."""
    limits = Limits()
    for resource, record in enumerate(found[: len(limits._values)]):
        limit = rights.limit(resource, record)
        limits.set(resource, limit.soft, limit.hard)
    return limits


def handlers(actions: SignalActions) -> list[records.Handler]:
    """Those that are not the default."""
    numbered = ((signo, actions[signo]) for signo in range(1, NSIG + 1))
    return [records.Handler(signo, *one) for signo, one in numbered if one != DEFAULT_ACTION]


def made_actions(found: Sequence[records.Handler]) -> SignalActions:
    """SIGKILL and SIGSTOP have no other."""
    actions = SignalActions()
    for one in found:
        if one.signal and not UNBLOCKABLE >> (one.signal - 1) & 1:
            actions[one.signal] = Action(
                one.handler, one.flags, one.restorer, one.mask & ~UNBLOCKABLE
            )
    return actions


def waiting(pending: PendingSignals) -> records.Pending:
    """Those of timers are made anew with these."""
    infos = [
        records.Info(
            each.info.signo, each.info.code, each.info.errno, each.info.body,
            each.info.names_sender, each.forced,
        )
        for queue in pending._infos.values() for each in queue if each.on_taken is None
    ]  # fmt: skip
    kept = 0
    for signo, queue in pending._infos.items():
        if all(each.on_taken is not None for each in queue):
            kept |= 1 << (signo - 1)
    return records.Pending(pending.mask & ~kept, infos)


def made_waiting(record: records.Pending, pending: PendingSignals, quota: Quota, uid: int) -> None:
    """As many as there may be."""
    for info in record.infos:
        if not quota.take(uid, 0, override=True):
            return
        one = SigInfo(info.signo, info.code, info.body, info.errno, info.names_sender)
        pending.add(Queued(one, info.forced, quota, uid))
    for signo in range(1, NSIG + 1):
        if record.mask >> (signo - 1) & 1:
            pending.add_bare(signo)


def usage(used: Usage) -> records.Usage:
    """What has been counted."""
    counts = {name: getattr(used, name) for name in (*SUMS, "maxrss")}
    return records.Usage({name: count for name, count in counts.items() if count})


def made_usage(record: records.Usage, used: Usage) -> None:
    """Names that are not known count nothing."""
    for name, count in record.counts.items():
        if name in SUMS or name == "maxrss":
            setattr(used, name, count)
