"""`Injection`: the rules of a sandbox, in force until others take their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sentry.abi import unistd
from sentry.errors import EINVAL
from sentry.faults import GOFER, MAX_RULES, NETWORK, InjectRule, InjectState
from sentry.inject.calls import NEVER, Faulty, error_of, length_at, takes_vectors
from sentry.inject.choice import Choice
from sentry.inject.frames import FrameFaults
from sentry.inject.gofer import GoferFaults
from sentry.syscalls.interposing import Place, declared, interpose

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.net.link.link import Link


class Injection:
    """One of a sandbox: `kernel.services.injection`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._choices: list[Choice] = []
        self._numbers: set[int] = set()
        """Of calls that somebody stands before."""
        self._links = False
        """Links have faults."""

    def states(self) -> list[InjectState]:
        """The rules, and what came of them."""
        return [InjectState(each.rule, each.fitted, each.injected) for each in self._choices]

    def replace(self, rules: Sequence[InjectRule]) -> None:
        """These from now on, all or none. Raises: EINVAL, which says what is wrong."""
        if len(rules) > MAX_RULES:
            raise EINVAL(f"more than {MAX_RULES} rules")
        if any(NETWORK in each.calls for each in rules) and _has_no_links(self._kernel):
            raise EINVAL("the sandbox has no network of its own")
        by_number: dict[int, list[Choice]] = {}
        choices = []
        for rule in rules:
            try:
                choice = Choice(rule)
            except ValueError as error:
                raise EINVAL(str(error)) from None
            choices.append(choice)
            for number in checked(rule):
                by_number.setdefault(number, []).append(choice)
        for number in self._numbers - by_number.keys():
            interpose(number, Place.INJECTION, None)
        for number, found in by_number.items():
            interpose(number, Place.INJECTION, Faulty(found).around)
        self._choices, self._numbers = choices, set(by_number)
        self._apply_beside()

    def go_on_from(self, states: Sequence[InjectState]) -> None:
        """The same of rules to which something has come already. Raises: EINVAL."""
        self.replace([each.rule for each in states])
        for choice, state in zip(self._choices, states, strict=True):
            choice.fitted, choice.injected = state.fitted, state.injected

    def _apply_beside(self) -> None:
        """To the Gofer and the network."""
        kernel = self._kernel
        gofer = self._of(GOFER)
        faults = GoferFaults(kernel.loop, gofer) if gofer else None
        for session in kernel.services.gofers:
            session.faults = faults
        network = self._of(NETWORK)
        if not network and not self._links:
            return
        self._links = bool(network)

        def faults_of(link: Link) -> FrameFaults | None:
            return FrameFaults(link, kernel.loop, network) if network else None

        layer = kernel.first.net.stack.ip
        if layer is None:
            return
        layer.faults_of = faults_of
        for link in layer.links.values():
            if not link.stays_inside:
                link.faults = faults_of(link)

    def _of(self, kind: str) -> list[Choice]:
        return [each for each in self._choices if kind in each.rule.calls]


def _has_no_links(kernel: Kernel) -> bool:
    """Its sockets are the host's."""
    return kernel.first.net.stack.ip is None


def of(kernel: Kernel) -> Injection:
    """The sandbox's."""
    found: Injection | None = kernel.services.injection
    if found is None:
        found = kernel.services.injection = Injection(kernel)
    return found


def checked(rule: InjectRule) -> list[int]:
    """The numbers of its system calls. Raises: EINVAL."""
    if rule.errno and error_of(rule.errno) is None:
        raise EINVAL(f"no errno: {rule.errno[:20]}")
    if rule.direction not in ("", "in", "out"):
        raise EINVAL("a direction is in or out")
    beside = {GOFER, NETWORK}.intersection(rule.calls)
    if not rule.calls or (beside and len(rule.calls) > 1):
        raise EINVAL("a rule is about system calls, the gofer, or the network")
    frames = rule.drop or rule.reorder or bool(rule.direction)
    if (NETWORK in beside) != frames and (frames or not rule.delay_ns):
        raise EINVAL("frames, and nothing else, are lost, reordered, or late")
    if not (rule.errno or rule.short >= 0 or rule.delay_ns or rule.drop or rule.reorder):
        raise EINVAL("a rule says what is wrong: errno, short, delay; loss or reorder of frames")
    if beside and (rule.paths or rule.programs or rule.short >= 0):
        raise EINVAL("paths, programs and short are for system calls")
    if NETWORK in beside and rule.errno:
        raise EINVAL("a frame has no errno")
    return [] if beside else [_number(name, rule) for name in rule.calls]


def _number(name: str, rule: InjectRule) -> int:
    number = vars(unistd).get(name)
    declaration = declared(number) if isinstance(number, int) else None
    if declaration is None:
        raise EINVAL(f"no such call here: {name[:40]}")
    if declaration.number in NEVER:
        raise EINVAL(f"{name} cannot fail, or is answered without the kernel")
    if rule.short >= 0 and length_at(declaration) is None and not takes_vectors(declaration):
        raise EINVAL(f"{name} does not read or write a number of bytes")
    return declaration.number
