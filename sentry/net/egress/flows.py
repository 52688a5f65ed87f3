"""Flows that leave: each is judged once, remembered, and judged again if the policy changes.

A flow is what its five-tuple says, seen from the sandbox: its source is inside. Answers, errors and
fragments are its own. What is denied is not remembered: a name may be asked for a moment later.

A connection that a broker gets is a flow, too, but no packet is of it: it is in a table of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from sentry.net.egress.denials import Denial, Denials
from sentry.net.egress.limits import Usage, Used, Way
from sentry.net.egress.policy import BROKERED, DEFAULT, Policy, Program, Target, Verdict
from sentry.net.egress.rules import Rule

MAX_FLOWS: Final = 32768
TCP: Final = 6
UDP: Final = 17
PORTED: Final = frozenset((TCP, UDP, 33, 132, 136))
"""Also DCCP, SCTP and UDP-Lite: protocols whose packets begin with ports."""
SECOND: Final = 1_000_000_000
IDLE_NS: Final = {TCP: 432000 * SECOND, UDP: 180 * SECOND}
"""As nf_conntrack's: net.netfilter.nf_conntrack_tcp_timeout_established, _udp_timeout_stream."""
OTHER_IDLE_NS: Final = 60 * SECOND
OPENING_NS: Final = 120 * SECOND
"""nf_conntrack_tcp_timeout_syn_sent."""
REVOKED_NS: Final = IDLE_NS[UDP]
AGED_AT_ONCE: Final = 2
PASSED_OVER: Final = 16
"""How many connections of TCP are looked at for something that is missed less."""
MAX_NAMES: Final = 64
"""Of a flow; the oldest go first."""
OVER: Final = "a quota"
UNKNOWN_FORM: Final = "no name of a host"
INBOUND: Final = "flows from outside"
OTHER_BROKER: Final = "no longer by this broker"


class Names(Protocol):
    """Who knows for which names an address was given: `sentry.net.names.given.Given`."""

    def names_of(self, ip: bytes, now_ns: int) -> tuple[str, ...]:
        """Those that hold now."""


class Key(NamedTuple):
    """Of a flow; addresses are 16 bytes, ports 0 where there are none (an echo's identifier)."""

    protocol: int
    source: bytes
    source_port: int
    target: bytes
    target_port: int


class Counters(Struct):
    """What has happened."""

    judged: int = 0
    denied: int = 0
    revoked: int = 0
    """Allowed once, and no longer."""
    pushed_out: int = 0
    """Forgotten for want of room."""
    handed_on: int = 0
    """To brokers."""


class Flow:
    """One that may leave, or why it may not."""

    __slots__ = (
        "broker", "generation", "inbound", "is_opening", "key", "names", "open", "program",
        "usages", "used_ns", "verdict",
    )  # fmt: skip

    def __init__(self, key: Key, program: Program | None, verdict: Verdict) -> None:
        self.key = key
        self.program = program
        self.verdict = verdict
        self.broker: str | None = None
        """Who has got it; None: it is packets."""
        self.names: tuple[str, ...] = ()
        """Those that its address had whenever it was judged."""
        self.inbound = False
        self.is_opening = False
        """Nothing of it was seen but SYNs."""
        self.open = False
        """Whether it is in the table."""
        self.generation = 0
        self.used_ns = 0
        self.usages: tuple[Usage, ...] = ()

    @property
    def idle_ns(self) -> int:
        """How long it is remembered without packets."""
        if self.is_opening:
            return OPENING_NS
        return IDLE_NS.get(self.key.protocol, OTHER_IDLE_NS)


class Flows:
    """All of a sandbox."""

    def __init__(self, policy: Policy, names: Names) -> None:
        self.policy = policy
        self.denials = Denials()
        self.on_begin: Callable[[Flow], object] = lambda flow: None
        """One is let go, or in."""
        self.counters = Counters()
        self.total = Usage(policy.document.limits)
        self.by_rule: dict[Rule, Usage] = {}
        self._names = names
        self._flows: OrderedDict[Key, Flow] = OrderedDict()
        self._handed_on: dict[Flow, None] = {}
        """Those of brokers: as many as there are descriptors for."""
        self._generation = 0
        self._stale: list[Flow] = []
        self._revoked: OrderedDict[Key, int] = OrderedDict()
        """Flows that may not go on, and when somebody has tried last: what comes for one begins
        none from outside."""

    def __len__(self) -> int:
        return len(self._flows) + len(self._handed_on)

    def may_ask(self, name: str, program: Program | None, now_ns: int) -> bool:
        """The resolver's question."""
        verdict = self.policy.judge_name(name, program)
        if not verdict.allowed:
            self._denied(Key(0, b"", 0, b"", 0), program, (name,), verdict, now_ns)
        return verdict.allowed

    def check(self, key: Key, program: Program | None, now_ns: int) -> Verdict:
        """The early answer of connect(2) and sendto(2); nothing is remembered."""
        flow = self._known(key, now_ns)
        if flow is None:
            flow = self._judged(key, program, self._names.names_of(key.target, now_ns), now_ns)
        return flow.verdict

    def leaving(self, key: Key, program: Program | None, now_ns: int) -> Flow:
        """A packet that is about to leave by an uplink: of a flow that is known, or of a new one.

        If its verdict does not allow it, the packet goes nowhere, and a connection that was open
        is to be reset.
        """
        flow = self._known(key, now_ns)
        if flow is not None:
            return flow
        flow = self._judged(key, program, self._names.names_of(key.target, now_ns), now_ns)
        if flow.verdict.allowed:
            self._begin(flow, now_ns)
        return flow

    def broker_of(self, target: Target, program: Program | None, now_ns: int) -> str | None:
        """Who would get a connection of TCP; None: it has to go as packets, if it may."""
        names = self._names.names_of(target.ip, now_ns)
        verdict = self.policy.judge(target, program, names)
        return verdict.broker if verdict.allowed else None

    def hand_on(self, key: Key, program: Program | None, broker: str, now_ns: int) -> Flow:
        """A connection that a broker is about to get, if the verdict allows it."""
        names = self._names.names_of(key.target, now_ns)
        flow = self._judged(key, program, names, now_ns, broker)
        if flow.verdict.allowed:
            flow.generation, flow.open = self._generation, True
            self._handed_on[flow] = None
            self.on_begin(flow)
            for usage in flow.usages:
                usage.begin()
            self.counters.handed_on += 1
        return flow

    def goes_on(self, flow: Flow, now_ns: int) -> bool:
        """Whether one that a broker has may still, by the policy of now."""
        return flow.open and self._renewed(flow, now_ns)

    def is_not_served(self, flow: Flow, reason: str, now_ns: int) -> None:
        """It was allowed, and its broker did not take it: that is in the log, too."""
        verdict = Verdict(False, flow.verdict.rule, reason)
        self._denied(flow.key, flow.program, flow.names, verdict, now_ns)

    def arriving(self, key: Key, program: Program | None, now_ns: int) -> Flow | None:
        """A packet from outside; `source` is inside here, too.

        It belongs to a flow, or begins one, if a listener or socket wants it and the policy lets
        flows in; otherwise it is to be dropped. `program` is who listens.
        """
        flow = self._known(key, now_ns)
        if flow is not None:
            return flow if flow.verdict.allowed else None
        if self.policy.document.inbound != "allow" or not self.total.admits:
            return None
        if self._is_revoked(key, now_ns):
            return None
        flow = Flow(key, program, Verdict(True, DEFAULT, INBOUND))
        flow.inbound = True
        flow.usages = (self.total,)
        self._begin(flow, now_ns)
        return flow

    def _is_revoked(self, key: Key, now_ns: int) -> bool:
        since_ns = self._revoked.pop(key, None)
        if since_ns is None or now_ns - since_ns > REVOKED_NS:
            return False
        self._revoked[key] = now_ns
        return True

    def known(self, key: Key, now_ns: int) -> Flow | None:
        """One in the table, which may go on; nothing is begun."""
        flow = self._known(key, now_ns)
        return flow if flow is not None and flow.verdict.allowed else None

    def refuse(self, key: Key, program: Program | None, reason: str, now_ns: int) -> Verdict:
        """What no rule has to decide."""
        verdict = Verdict(False, DEFAULT, reason, self.policy.errno)
        self._denied(key, program, (), verdict, now_ns)
        return verdict

    def refuse_name(self, name: str, program: Program | None, now_ns: int) -> None:
        """A name that policy does not know how to write."""
        verdict = Verdict(False, DEFAULT, UNKNOWN_FORM, self.policy.errno)
        self._denied(Key(0, b"", 0, b"", 0), program, (name,), verdict, now_ns)

    def of_error(self, key: Key, now_ns: int) -> Flow | None:
        """The flow of a packet that an ICMP error quotes, whichever way that went."""
        source, target = key[1:3], key[3:5]
        for seen in (key, Key(key.protocol, *target, *source)):
            flow = self.known(seen, now_ns)
            if flow is not None:
                return flow
        return None

    def move(self, flow: Flow, way: Way, count: int, now_ns: int) -> int | None:
        """Whether bytes of a flow may move: 0; or how long, in ns, it is until they may.

        None: a quota is used up, and the flow is to be reset.
        """
        wait_ns = 0
        for usage in flow.usages:
            if not usage.has_room(way, count):
                over = Verdict(False, flow.verdict.rule, OVER, self.policy.errno)
                self._denied(flow.key, flow.program, flow.names, over, now_ns)
                return None
            if usage.is_paced:
                wait_ns = max(wait_ns, usage.wait_ns(way, now_ns))
        if wait_ns == 0:
            for usage in flow.usages:
                usage.take(way, count, now_ns)
        return wait_ns

    def may_end(self, key: Key, now_ns: int) -> bool:
        """Whether a reset of the stack's own goes: of a flow, which is over then, or of one that
        was broken off. Else whoever writes a segment, as if it had come from somebody, had him
        answered."""
        flow = self._known(key, now_ns)
        if flow is None:
            return self._is_revoked(key, now_ns)
        self.ended(flow)
        return True

    def break_off(self, flow: Flow, now_ns: int) -> None:
        """It may not go on: what comes for it begins no other, and its reset may still go."""
        self.ended(flow)
        if flow.broker is None:
            self._revoked[flow.key] = now_ns
        if len(self._revoked) > MAX_FLOWS:
            self._revoked.popitem(last=False)

    def ended(self, flow: Flow) -> None:
        """Its connection is closed, or it was reset."""
        if flow.open:
            flow.open = False
            if flow.broker is None:
                del self._flows[flow.key]
            else:
                del self._handed_on[flow]
            for usage in flow.usages:
                usage.open -= 1

    def change(self, policy: Policy) -> None:
        """Another policy, for all that leaves from now on; `sweep` finds flows it does not allow.

        What rules have used that are in both goes on to count.
        """
        self.policy = policy
        self.total.limit(policy.document.limits)
        rules = set(policy.document.rule)
        self.by_rule = {rule: usage for rule, usage in self.by_rule.items() if rule in rules}
        self._generation += 1
        self._stale = [*self._flows.values(), *self._handed_on]

    def used(self) -> list[Used]:
        """What was used of limits: of those of all, then of each rule of the policy."""
        rules = self.policy.document.rule
        return [each.used for each in (self.total, *map(self._usage_of, rules))]

    def go_on_from(self, used: Iterable[Used]) -> None:
        """What was used before this began, as `used` says it of the same policy, counts."""
        rules = self.policy.document.rule
        usages = (self.total, *map(self._usage_of, rules))
        for usage, (sent, received, connections) in zip(usages, used, strict=False):
            usage.bytes[Way.OUT], usage.bytes[Way.IN] = sent, received
            usage.connections = connections

    def sweep(self, count: int, now_ns: int) -> list[Flow] | None:
        """Judge some flows again after a change: those that have to be reset; None at the end."""
        if not self._stale:
            return None
        some = self._stale[-count:]
        del self._stale[-count:]
        return [flow for flow in some if flow.open and not self._renewed(flow, now_ns)]

    def _known(self, key: Key, now_ns: int) -> Flow | None:
        """A flow in the table, which the policy of now has judged."""
        flow = self._flows.get(key)
        if flow is None:
            return None
        if now_ns - flow.used_ns > flow.idle_ns:
            self.ended(flow)
            return None
        self._renewed(flow, now_ns)
        if flow.open:
            flow.used_ns = now_ns
            self._flows.move_to_end(key)
        return flow

    def _renewed(self, flow: Flow, now_ns: int) -> bool:
        """Judge a flow again if the policy has changed, by the names of then and of now.

        Whether it may go on; if not, it is out of the table.
        """
        if flow.generation == self._generation:
            return True
        flow.generation = self._generation
        if flow.inbound:
            allowed = self.policy.document.inbound == "allow"
            refused = Verdict(False, DEFAULT, INBOUND, self.policy.errno)
            verdict = flow.verdict if allowed else refused
        else:
            now = self._names.names_of(flow.key.target, now_ns)
            flow.names = tuple(dict.fromkeys((*flow.names, *now)))[-MAX_NAMES:]
            verdict = self._verdict(flow)
        if verdict.allowed:
            self._charge_to(flow, verdict)
            return True
        self.counters.revoked += 1
        self.break_off(flow, now_ns)
        flow.verdict = verdict
        self._denied(flow.key, flow.program, flow.names, verdict, now_ns)
        return False

    def _verdict(self, flow: Flow) -> Verdict:
        """Of the policy: what a broker is to have goes by no other way, and by none else to it."""
        verdict = self.policy.judge(target_of(flow.key), flow.program, flow.names)
        if not verdict.allowed or verdict.broker == flow.broker:
            return verdict
        reason = BROKERED if flow.broker is None else OTHER_BROKER
        return Verdict(False, verdict.rule, reason, self.policy.errno)

    def _judged(
        self, key: Key, program: Program | None, names: tuple[str, ...], now_ns: int,
        broker: str | None = None,
    ) -> Flow:  # fmt: skip
        """A new flow, outside of the table."""
        self.counters.judged += 1
        flow = Flow(key, program, Verdict(False, DEFAULT, ""))
        flow.names, flow.broker = names, broker
        verdict = flow.verdict = self._verdict(flow)
        if verdict.allowed:
            flow.usages = self._usages(verdict)
            if not all(usage.admits for usage in flow.usages):
                flow.verdict = Verdict(False, verdict.rule, OVER, self.policy.errno)
        if not flow.verdict.allowed:
            self._denied(key, program, names, flow.verdict, now_ns)
        return flow

    def _usages(self, verdict: Verdict) -> tuple[Usage, ...]:
        """Of all flows, and of those of a rule."""
        rule = self.policy.rule(verdict.rule)
        if rule is None:
            return (self.total,)
        return (self.total, self._usage_of(rule))

    def _usage_of(self, rule: Rule) -> Usage:
        usage = self.by_rule.get(rule)
        if usage is None:
            usage = self.by_rule[rule] = Usage(rule.limits)
        return usage

    def _charge_to(self, flow: Flow, verdict: Verdict) -> None:
        """It goes on, perhaps because of another rule."""
        usages = (self.total,) if flow.inbound else self._usages(verdict)
        for usage in flow.usages:
            usage.open -= 1
        for usage in usages:
            usage.open += 1
        flow.usages, flow.verdict = usages, verdict

    def _begin(self, flow: Flow, now_ns: int) -> None:
        """Put it into the table, and age some that were not used for longest."""
        for _ in range(AGED_AT_ONCE):
            oldest = next(iter(self._flows.values()), None)
            if oldest is not None and now_ns - oldest.used_ns > oldest.idle_ns:
                self.ended(oldest)
        if len(self._flows) >= MAX_FLOWS:
            self.counters.pushed_out += 1
            self.ended(_least_missed(self._flows.values()))
        flow.generation, flow.used_ns, flow.open = self._generation, now_ns, True
        self._flows[flow.key] = flow
        self.on_begin(flow)
        for usage in flow.usages:
            usage.begin()

    def _denied(
        self,
        key: Key,
        program: Program | None,
        names: tuple[str, ...],
        verdict: Verdict,
        now_ns: int,
    ) -> None:
        self.counters.denied += 1
        self.denials.add(Denial(
            0, now_ns, names, target_of(key), program, verdict.rule, verdict.reason
        ))  # fmt: skip


def target_of(key: Key) -> Target:
    """Where it goes."""
    port = key.target_port if key.protocol in PORTED else None
    return Target(key.protocol, key.target, port)


def _least_missed(flows: Iterable[Flow]) -> Flow:
    """The one unused for longest, but rather none of TCP."""
    oldest = None
    for at, flow in enumerate(flows):
        oldest = oldest or flow
        if flow.key.protocol != TCP:
            return flow
        if at >= PASSED_OVER:
            break
    assert oldest is not None
    return oldest
