"""/proc/PID/sandbox_forks: whether the sandbox is a copy of another one, and who wants to hear of
that. Linux has no such file."""

from __future__ import annotations

from typing import Final

from sentry.fs.proc.registry import View, number, pid_file

MAX_SIGNAL: Final = 64


def _ask(view: View, data: bytes) -> None:
    """A signal that the process gets in each fork of the sandbox; 0: none. Raises: EINVAL,
    ERANGE."""
    group, signals = view.subject.group, view.kernel.services.forks.signals
    wanted = number(data, 0, MAX_SIGNAL)
    for other in [each for each in signals if not each.tasks]:
        del signals[other]
    signals.pop(group, None)
    if wanted:
        signals[group] = wanted


@pid_file("sandbox_forks", 0o644, private=True, store=_ask)
def sandbox_forks(view: View) -> str:
    """How many forks there were on the way to this sandbox, and the signal that this process gets
    in the next."""
    forks = view.kernel.services.forks
    return f"{forks.count} {forks.signals.get(view.subject.group, 0)}\n"
