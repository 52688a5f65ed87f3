"""Who decides on system calls: `runsc policy`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import msgspec

from sentry.control.answers import PolicyTold, QuestionTold
from sentry.control.protocol import DEFECT, sound
from sentry.control.tracing import every_task
from sentry.errors import EBUSY, EINVAL, Errno
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.config import PolicyConfig
    from sentry.control.orders import PolicyOrder
    from sentry.control.watchdog import Watchdog
    from sentry.kernel.kernel import Kernel
    from sentry.policy.engine import Engine
    from sentry.policy.module import Module
    from sentry.wait.steps import Steps

Done = Callable[[str], object]
MAX_QUESTIONS_SIZE: Final = 2 << 20
"""Of what is told at a time, the oldest first: a line of the client's has an end."""


def engine_of(kernel: Kernel, watchdog: Watchdog) -> Engine:
    """The sandbox's."""
    if kernel.policy is None:
        from sentry.policy.engine import Engine  # noqa: PLC0415  few have one

        engine = kernel.policy = Engine(kernel)
        watchdog.guard = engine.guard
    return cast("Engine", kernel.policy)


def read(engine: Engine, config: PolicyConfig) -> Module:
    """What a configuration says. Raises: EINVAL."""
    if config.learns:
        from sentry.policy.learning import module  # noqa: PLC0415  few learn

        return module(engine)
    return engine.read(config.name, config.source)


def do(kernel: Kernel, watchdog: Watchdog, order: PolicyOrder, done: Done) -> PolicyTold | None:
    """What is asked for; None: `done` hears of it later. Raises: EBUSY, EINVAL, ENOENT."""
    if order.do == "show":
        return told(kernel)
    engine = engine_of(kernel, watchdog)
    if order.do == "answer":
        from sentry.policy.verdicts import parsed  # noqa: PLC0415  it is there by now

        try:
            verdict = parsed(order.verdict)
        except ValueError as error:
            raise EINVAL(str(error)) from None
        engine.outside.answer(order.number, verdict)
        return told(kernel)
    if order.do != "load":
        raise EINVAL("what to do?")
    if engine.is_changing:
        raise EBUSY("somebody else is changing that just now")
    module = read(engine, order.policy) if order.policy is not None else None
    engine.is_changing = True

    def ended(_: object, error: BaseException | None) -> None:
        engine.is_changing = False
        if error is not None and not isinstance(error, Errno):
            kernel.log.bug("policy", error)
            done(DEFECT)
        else:
            done(str(error) if error is not None else "")

    kernel.loop.spawn(driven(use(kernel, engine, module)), "policy", ended)
    return None


def use(kernel: Kernel, engine: Engine, module: Module | None) -> Steps[None]:
    """It decides from now on."""
    if (yield from engine.use(module)):
        yield from every_task(kernel)


def told(kernel: Kernel, after: int = 0) -> PolicyTold:
    """The policy, what came of it, and questions of higher numbers."""
    engine = cast("Engine | None", kernel.policy)
    if engine is None:
        return PolicyTold()
    counts: dict[str, int] = {}
    for name, count in engine.counts.items():
        counts |= {f"{name}.{verdict}": number for verdict, number in count.decided.items()}
        if count.failed:
            counts[f"{name}.failed"] = count.failed
    now_ns = kernel.loop.now_ns()
    questions: list[QuestionTold] = []
    room = MAX_QUESTIONS_SIZE
    for each in engine.outside.questions.values():
        if each.number <= after:
            continue
        pid, program = each.who
        shown = QuestionTold(
            each.number, sound(each.text), sound(each.what), pid, sound(program),
            each.deadline_ns - now_ns,
        )  # fmt: skip
        room -= len(msgspec.json.encode(shown))
        if room < 0:
            break
        questions.append(shown)
    module = engine.module
    if module is None:
        return PolicyTold(counts=counts, questions=questions)
    return PolicyTold(module.name, module.source, counts, questions)


class QuestionWait:
    """Calls `done` once when there are questions of higher numbers, unless it is given up."""

    def __init__(
        self, kernel: Kernel, watchdog: Watchdog, after: int, done: Callable[[PolicyTold], object]
    ) -> None:
        self._kernel = kernel
        self._after = after
        self._done = done
        self._outside = engine_of(kernel, watchdog).outside
        self._entry = self._outside.changed.add(self._look)

    def look(self) -> None:
        """There may be some already."""
        self._look(0)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        self._outside.changed.remove(self._entry)

    def _look(self, _events: int) -> None:
        if any(number > self._after for number in self._outside.questions):
            self.abandon()
            self._kernel.loop.call_soon(self._tell)  # it is in the middle of that

    def _tell(self) -> None:
        self._done(told(self._kernel, self._after))
