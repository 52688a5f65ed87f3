"""`runsc policy test`: what a policy would say of what was recorded.

A recording is what `trace watch --record` writes, or lines of JSON (a sink, `policy learn`). What
`sentry/policy` tells is exact; of system calls there are the paths that programs gave, which is
near enough where no link was on the way. A handler that asks somebody is taken to be answered.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator
from typing import Any, Final

from runsc.containers.watching import MAGIC, parse, recorded
from runsc.errors import RuntimeFailure
from sentry.abi.fcntl import O_ACCMODE, O_CREAT, O_PATH, O_TRUNC
from sentry.config import PolicyConfig
from sentry.errors import EINVAL
from sentry.policy.judge import is_for_address
from sentry.policy.module import load
from sentry.policy.rules import GIVES, OPENS, RUNS, Rule, number_of
from sentry.policy.verdicts import ALLOW, Allow, Verdict
from sentry.syscalls.registry import NUMBERS
from sentry.watch import messages as m

_OF: Final = {name: number for number, name in NUMBERS.items()}


class Replayed:
    """What a handler is told: an event of a recording."""

    container = comm = family = hash = ""
    pid = tid = uid = gid = flags = 0
    changed = False

    def __init__(self, record: m.Policy) -> None:
        self.call, self.kind = record.call, record.kind
        self.program, self.path = record.program, record.path
        self.writes, self.creates = record.writes, record.creates
        self.address, self.port, self.protocol = record.address, record.port, record.protocol
        self.args: dict[str, Any] = {}
        self.argv: list[str] = []
        self.parents: list[str] = []
        self.number: int | None = None
        self.unix = ""
        if record.kind == "address" and record.address and record.address[0] not in "/@":
            self.number = number_of(record.address)
            self.family = "inet6" if ":" in record.address else "inet"
        elif record.kind == "address":
            self.family, self.unix = "unix", record.address

    def __str__(self) -> str:
        what = self.path
        if self.kind == "address":
            what = f"{self.address}:{self.port}" if self.port else self.address
        return f"{self.call} {what}".rstrip()


class _Unbounded:
    def load(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


def denials(policy: PolicyConfig, recording: str) -> Iterator[str]:
    """A line for each thing that would not happen. Raises: RuntimeFailure."""
    try:
        rules = load(policy.name, policy.source, _Unbounded(), lambda _: None).rules
        told = set()
        for record in _records(recording):
            event = Replayed(record)
            verdict, rule = decided(rules, event)
            line = f"{event} by {event.program}: {verdict} ({rule})"
            if not isinstance(verdict, Allow) and line not in told:
                told.add(line)
                yield line
    except OSError as error:
        raise RuntimeFailure(f"open {recording}: {(error.strerror or '').lower()}") from None
    except (ValueError, EINVAL) as error:
        raise RuntimeFailure(str(error)) from None
    except RecursionError:
        raise RuntimeFailure(f"{recording} is nested too deeply") from None


def decided(rules: list[Rule], event: Replayed) -> tuple[Verdict, str]:
    """The verdict, and whose it is. Raises: ValueError if a handler fails."""
    for rule in rules:
        if not _is_for(rule, event):
            continue
        try:
            verdict = rule.handler(event)
            if rule.waits:
                verdict = _answered(verdict)
        except Exception as error:
            raise ValueError(f"{rule.name}: {type(error).__name__}: {error}") from None
        if verdict is not None:
            return verdict, rule.name
    return ALLOW, ""


def _answered(rest: Any) -> Any:
    answer: Any = None
    while True:
        try:
            rest.send(answer)
        except StopIteration as end:
            return end.value
        answer = ALLOW


def _is_for(rule: Rule, event: Replayed) -> bool:
    if _OF.get(event.call) not in rule.numbers:
        return False
    if event.kind == "path" and event.call in GIVES and rule.kind != "call":
        is_asked = (rule.path is not None or rule.kind == "open") and rule.kind != "address"
        return is_asked and rule.is_for_name(event.path)
    if rule.kind != event.kind:
        return False
    if rule.program is not None and rule.program.fullmatch(event.program) is None:
        return False
    if event.kind == "address":
        return is_for_address(rule, event.number, event.port, event.protocol, event.unix)
    return not rule.hashes and rule.is_for_path(event.path)


def _records(path: str) -> Iterator[m.Policy]:
    with open(path, "rb") as file:
        binary = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if not binary:
            while line := file.readline(1 << 20):
                found = json.loads(line)
                if isinstance(found, dict) and found.get("point") == "sentry/policy":
                    yield _of_json(found.get("record"))
            return
        for data in recorded(file):
            told = parse(data, lambda number: NUMBERS.get(number, ""))
            if told is not None:
                yield from _of_record(told.record)


def _of_json(found: Any) -> m.Policy:
    """Raises: ValueError."""
    if not isinstance(found, dict):
        raise ValueError(f"no record of a policy: {found!r}")
    record = m.Policy()
    for name, kind in (("call", str), ("kind", str), ("program", str), ("path", str),
                       ("writes", bool), ("creates", bool), ("address", str), ("port", int),
                       ("protocol", str)):  # fmt: skip
        value = found.get(name, kind())
        if type(value) is not kind:
            raise ValueError(f"no record of a policy: {name} is {value!r}")
        setattr(record, name, value)
    return record


def _of_record(found: m.Record) -> Iterator[m.Policy]:
    """What a system call has come to, as far as its record says it."""
    if isinstance(found, m.Policy):
        yield found
    elif isinstance(found, m.Open) and found.exit is not None and not found.exit.errorno:
        record = m.Policy(None, NUMBERS.get(found.sysno, ""), "open")
        record.path = posixpath.normpath(posixpath.join("/", found.fd_path, found.pathname))
        flags = found.flags
        record.writes = not flags & O_PATH and bool(flags & (O_ACCMODE | O_TRUNC))
        record.creates = bool(flags & O_CREAT)
        if record.call in OPENS:
            yield record
    elif isinstance(found, m.ExecveInfo):
        record = m.Policy(None, RUNS[0], "exec")
        record.path = found.binary_path
        yield record
    elif isinstance(found, m.Connect) and found.exit is not None and found.peer:
        record = m.Policy(None, "connect", "address")
        if found.peer.startswith("unix:"):
            record.address = record.path = found.peer.removeprefix("unix:")
        else:
            host, _, port = found.peer.rpartition(":")
            record.address, record.port = host.strip("[]"), int(port)
        yield record
