"""`Layer`: what stands before the handler of a call that a policy is interested in.

Rules for the call itself are asked first, with its decoded arguments. While the handler runs, the
task has a `Judge` for rules about what it comes to. What is decided is an exception on its way
out: an errno, the end of the process, a result, or the call once more with other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.limits import PATH_MAX
from sentry.abi.signal import SIGSYS
from sentry.errors import EACCES, EPERM, from_number
from sentry.policy.event import Event
from sentry.policy.judge import Judge
from sentry.policy.outside import Superseded
from sentry.policy.verdicts import Allow, Change, Deny, Kill, Result, Verdict
from sentry.suppress import suppress
from sentry.syscalls.args import UserPath
from sentry.wait.again import CURRENT, Call, NotNow, kept
from sentry.wait.fiber import Killed

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.policy.engine import Engine
    from sentry.policy.rules import Rule
    from sentry.syscalls.registry import Declaration, Handler

MAX_WAITS: Final = 16
"""Times that a call waits for somebody outside: it came to another object each time."""
KINDS: Final = ("call", "open", "exec", "path", "address")
WAITS: Final = "policy: waits"
DECIDED: Final = "policy: decided"
"""Key of a result that was given while the call slept: it has it when it is made again."""


class Decided(BaseException):
    """The call is not made as it was asked for; nothing of the kernel stops that."""


class Given(Decided):
    """It has this result."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value


class Changed(Decided):
    """It is to be made with other arguments."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change


class Layer:
    """Of one call."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self.number = number
        self.use((), ())
        self.declaration: Declaration

    def use(self, rules: Sequence[Rule], gives: Sequence[Rule]) -> None:
        """From now on, also by calls that wait. `gives` are about names of files, and it gives a
        file another name."""
        of = {kind: [rule for rule in rules if rule.kind == kind] for kind in KINDS}
        self.calls, self.opens, self.runs, self.paths, self.addresses = of.values()
        self.gives = list(gives)
        self.names = [rule for rule in gives if not rule.family]
        """Of those the ones about names that are given: what they allow no other is asked about."""
        families = dict.fromkeys(rule.family for rule in gives if rule.family)
        self.families = [[rule for rule in gives if rule.family == each] for each in families]
        self._judges = bool(gives) or any(rule.kind != "call" for rule in rules)

    def around(self, declaration: Declaration, handler: Handler) -> Handler:
        """For sentry.syscalls.interposing."""
        self.declaration = declaration
        return partial(self._call, handler)

    def _call(self, handler: Handler, task: Task, *values: Any) -> Any:
        """The handler, as the decoder calls it."""
        made: tuple[tuple[Any, ...], bool] = (values, False)
        if CURRENT.call is not None:
            made = CURRENT.call.answers.get(self, made)
        make = self._made if self.calls else self._judged
        while True:
            values, is_changed = made
            try:
                return make(handler, task, values, is_changed)
            except Given as given:
                return given.value
            except Changed as changed:
                values = changed_values(self.declaration, values, changed.change, is_changed)
                made = values, True
            except NotNow as need:
                if is_changed:
                    need.call.answers[self] = made
                raise

    def _made(
        self, handler: Handler, task: Task, values: tuple[Any, ...], is_changed: bool
    ) -> Any:
        asked = self, self._engine.generation, is_changed
        if kept(asked) is None:
            for value in values:
                if type(value) is UserPath and value:
                    value.settle()
            event = Event(self, task, values, "call")
            if is_changed:
                event.changed = True
            self.decide(task, self.calls, event, ("call", is_changed))
        try:
            return self._judged(handler, task, values, is_changed)
        except NotNow as need:
            need.call.answers[asked] = True  # about the call itself
            raise

    def _judged(
        self, handler: Handler, task: Task, values: tuple[Any, ...], is_changed: bool
    ) -> Any:
        if not self._judges:
            return handler(task, *values)
        if CURRENT.call is not None and DECIDED in CURRENT.call.answers:
            raise CURRENT.call.answers.pop(DECIDED)
        task.judge = judge = Judge(self, task, values, is_changed)
        try:
            result = handler(task, *values)
        except NotNow as need:
            need.wait = partial(_judged_wait, task, judge, need.call, need.wait)
            raise
        finally:
            task.judge = None
        # not its type: compiled modules have another one
        if result is not None and result.__class__ is not int and isinstance(result, Coroutine):
            return self._rest(handler, task, judge, result)
        return result

    async def _rest(self, handler: Handler, task: Task, judge: Judge, rest: Any) -> Any:
        """The same, of a call that sleeps in the middle."""
        task.judge = judge
        try:
            return await rest
        except Given as given:
            return given.value
        except NotNow as need:
            need.wait = partial(_judged_wait, task, judge, need.call, need.wait)
            raise
        except Changed as changed:
            task.judge = None
            values = changed_values(
                self.declaration, judge.values, changed.change, judge.is_changed
            )
            task.judge = Judge(self, task, values, True)
            try:
                result = handler(task, *values)
                return await result if isinstance(result, Coroutine) else result
            except Given as given:
                return given.value
        finally:
            task.judge = None

    # --- deciding

    def decide(
        self, task: Task, rules: Sequence[Rule], event: Event, subject: tuple[Hashable, ...],
        keep: tuple[Hashable, Any] | None = None,
    ) -> Allow | Change | None:
        """Ask the rules, in their order, about a subject; the first that says something decides.
        It is allowed; or, where that can be done in place, it is to be changed.

        Raises: Errno, Killed, Given, Changed, NotNow: the call has to be made again when somebody
        outside has answered.
        """
        program: str | None = None
        for rule in rules:
            if rule.program is not None:
                program = event.program if program is None else program
                if rule.program.fullmatch(program) is None:
                    continue
            if not rule.waits:
                verdict = self._engine.ask(rule, event)
            else:
                verdict = self._awaited(task, rule, event, subject, keep)
            if verdict is not None:
                return self._apply(task, verdict, rule, event)
        return None

    def _awaited(
        self, task: Task, rule: Rule, event: Event, subject: tuple[Hashable, ...],
        keep: tuple[Hashable, Any] | None,
    ) -> Verdict | None:
        key = (self, self._engine.generation, id(rule), event.changed, *subject)
        outcome: list[Verdict | None] | None = kept(key)
        if outcome:
            return outcome[0]
        waits = (kept(WAITS) or 0) + 1
        if waits > MAX_WAITS:
            raise EACCES("it came to another object each time")
        outcome = []
        need = NotNow(partial(self._answered, task, rule, event, outcome), key, outcome)
        need.call.answers[WAITS] = waits
        if keep is not None:
            need.call.answers[keep[0]] = keep[1]
        try:
            raise need
        finally:
            del need  # which has this frame: a circle

    async def _answered(
        self, task: Task, rule: Rule, event: Event, outcome: list[Verdict | None]
    ) -> None:
        with suppress(Superseded):  # the call is made again, and the new policy asked
            outcome.append(await self._engine.converse(rule, event, task))

    def _apply(
        self, task: Task, verdict: Verdict, rule: Rule, event: Event
    ) -> Allow | Change:
        self._engine.decided(task, verdict, rule, event)
        if isinstance(verdict, Allow):
            return verdict
        if isinstance(verdict, Deny):
            raise from_number(verdict.errno, f"policy: {rule.name}")
        if isinstance(verdict, Result):
            raise Given(verdict.value)
        if isinstance(verdict, Change):
            if event.kind == "address" and not event.unix and not event.changed:
                return verdict
            raise Changed(verdict)
        assert isinstance(verdict, Kill)
        task.group.exit(SIGSYS)
        raise Killed


async def _judged_wait(
    task: Task, judge: Judge, call: Call, wait: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """What a call does while it sleeps before it is made again is judged, too: the rest of a
    sequence (`begun`) may walk paths."""
    task.judge = judge
    try:
        await wait()
    except Given as given:
        call.answers[DECIDED] = given.with_traceback(None)
    except Changed:
        raise EPERM("policy: the call has begun") from None
    finally:
        task.judge = None


def changed_values(
    declaration: Declaration, values: tuple[Any, ...], change: Change, is_changed: bool
) -> tuple[Any, ...]:
    """The arguments that a handler wants: numbers, and paths. Raises: EPERM, of what cannot be."""
    if is_changed:
        raise EPERM("policy: changed once already")
    found = list(values)
    names = [name for name, _ in declaration.args]
    for name, value in change.arguments.items():
        if name not in names:
            raise EPERM(f"policy: {declaration.name} has no argument {name!r}")
        at = names.index(name)
        before = found[at]
        if type(before) is int and type(value) is int and -(1 << 63) <= value < 1 << 64:
            found[at] = value
        elif isinstance(before, (UserPath, bytes)) and type(value) in (str, bytes):
            path = value.encode(errors="surrogateescape") if type(value) is str else value
            if not 0 < len(path) < PATH_MAX or 0 in path:
                raise EPERM("policy: no path")
            found[at] = path if isinstance(before, bytes) else UserPath(before.task, 1, path)
        else:
            raise EPERM(f"policy: argument {name!r} cannot be changed to {type(value).__name__}")
    return tuple(found)
