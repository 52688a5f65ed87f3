"""`Engine`: the policy of a sandbox; `kernel.policy` once there was one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.kernel.identity import hears_fast_calls
from sentry.policy.guard import Guard, TooLong
from sentry.policy.layer import Layer
from sentry.policy.module import Module, load, told
from sentry.policy.outside import Ask, Outside
from sentry.policy.places import learn
from sentry.policy.rules import GIVES, Rule
from sentry.policy.verdicts import DENY, Allow, Change, Deny, Kill, Result, Verdict
from sentry.syscalls.interposing import Place, interpose
from sentry.syscalls.registry import NUMBERS

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.policy.event import Event
    from sentry.wait.steps import Steps

VERDICTS: Final[dict[type[Verdict], str]] = {
    each: each.__name__.lower() for each in (Allow, Deny, Kill, Result, Change)
}


MAX_LOGGED: Final = 4096
MAX_TOLD: Final = 1000
"""Failures of a handler that are logged."""


class Counts(Struct):
    """Of one handler."""

    decided: dict[str, int]
    failed: int = 0
    """It raised, was too long, or said what is no verdict."""


class Engine:
    """All of a sandbox."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.guard = Guard()
        self.outside = Outside(kernel)
        self.module: Module | None = None
        self.generation = 0
        """Policies so far."""
        self.is_changing = False
        self.counts: dict[str, Counts] = {}
        self._layers: dict[int, Layer] = {}

    def read(self, name: str, source: str) -> Module:
        """A policy from its source; nothing changes yet. Raises: EINVAL."""
        return load(name, source, self.guard, self._say)

    def use(self, module: Module | None) -> Steps[bool]:
        """It decides from now on, in place of the one before; whether calls that the entry code
        answers by itself come or go. What the one before has asked is asked anew."""
        rules = module.rules if module is not None else []
        wanted = {number for rule in rules for number in rule.numbers}
        fast = hears_fast_calls()
        for number in sorted(wanted - self._layers.keys()):  # the imports; they decide nothing
            layer = self._layers[number] = Layer(self, number)
            interpose(number, Place.POLICY, layer.around)
            yield
        self.module = module
        self.generation += 1
        self.counts = {}
        for number, layer in self._layers.items():
            mine = [rule for rule in rules if number in rule.numbers]
            gives = [
                rule for rule in mine
                if NUMBERS[number] in GIVES
                and (rule.kind in ("open", "address") or (rule.kind == "path" and rule.path))
            ]  # fmt: skip
            layer.use([rule for rule in mine if rule not in gives], gives)
        self.outside.supersede()
        for number in sorted(self._layers.keys() - wanted):
            interpose(number, Place.POLICY, None)
            del self._layers[number]
            yield
        return fast != hears_fast_calls()

    def begins(self, task: Task) -> None:
        """A container does: what is mounted now has its places, whatever its programs do."""
        learn(task.ns.mounts.mounts)

    # --- handlers

    def ask(self, rule: Rule, event: Event) -> Verdict | None:
        """What a handler says; a handler that fails denies."""
        try:
            verdict: Verdict | None = self.guard.run(rule.handler, event)
            if verdict is not None and type(verdict) not in VERDICTS:
                raise TypeError(f"{rule.name} gave no verdict but {type(verdict).__name__}")
        except BaseException as error:
            return self._failed(rule, event, error)
        return verdict

    async def converse(self, rule: Rule, event: Event, task: Task) -> Verdict | None:
        """The same, of a handler that is a coroutine. Raises: Killed, Superseded."""
        run = self.guard.run
        answer: Any = None
        rest: Any = None
        try:
            rest = run(rule.handler, event)
            while True:
                try:
                    asked = run(rest.send, answer)
                except StopIteration as end:
                    verdict: Verdict | None = end.value
                    break
                if type(asked) is not Ask:
                    raise TypeError("a handler awaits nothing but ask()")
                who = event.pid, event.program
                answer = await self._answered(asked, event, task, who)
            if verdict is not None and type(verdict) not in VERDICTS:
                raise TypeError(f"{rule.name} gave no verdict but {type(verdict).__name__}")
        except _Ended as end:
            self._close(rest)
            raise end.error from None
        except BaseException as error:
            self._close(rest)
            return self._failed(rule, event, error)
        return verdict

    async def _answered(
        self, asked: Ask, event: Event, task: Task, who: tuple[int, str]
    ) -> Verdict:
        """What is raised here is the kernel's, and no handler sees it."""
        try:
            return await self.outside.ask(asked, str(event), task, who)
        except BaseException as error:
            raise _Ended(error) from None

    def _close(self, rest: Any) -> None:
        if rest is not None:
            try:
                self.guard.run(rest.close)
            except BaseException as error:
                self._log(f"{type(error).__name__} at the end of a handler")

    def _failed(self, rule: Rule, event: Event, error: BaseException) -> Verdict:
        count = self._count(rule)
        count.failed += 1
        if count.failed > MAX_TOLD:
            return DENY  # a program could fill the log
        if isinstance(error, TooLong):
            why = "it takes more than 10 ms of time"
        else:
            try:
                why = str(self.guard.run(told, error))
            except BaseException:
                why = type(error).__name__
        what = printable(str(event))
        last = ", and so on" if count.failed == MAX_TOLD else ""
        self._log(f"{rule.name} failed, so {what} is denied: {why.rstrip()}{last}")
        return DENY

    def _count(self, rule: Rule) -> Counts:
        found = self.counts.get(rule.name)
        if found is None:
            found = self.counts[rule.name] = Counts({})
        return found

    def _log(self, text: str) -> None:
        self._kernel.log.write(f"policy: {text[:MAX_LOGGED]}\n")

    def _say(self, *words: object) -> None:
        """What a policy wants to have in the log: a line, whatever programs have chosen of it."""
        self._log(printable(" ".join(map(str, words))))

    def decided(self, task: Task, verdict: Verdict, rule: Rule, event: Event) -> None:
        """Count it, and tell who watches."""
        count = self.counts.get(rule.name) or self._count(rule)
        decided, kind = count.decided, VERDICTS[type(verdict)]
        decided[kind] = decided.get(kind, 0) + 1
        if (watch := self._kernel.watch) is not None:
            watch.decided(task, str(verdict), rule.name, event)

    def learnt(self, event: Event) -> None:
        """A program does what it has not done before."""
        if (watch := self._kernel.watch) is not None:
            watch.decided(event.task, "learnt", "learn", event)


class _Ended(BaseException):
    """The wait for an answer was ended by the kernel."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def printable(text: str) -> str:
    """One line, harmless to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
