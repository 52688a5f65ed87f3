"""`Outside`: what a policy asks somebody outside, until it is answered or its time is over."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import EAGAIN, ENOENT
from sentry.policy.verdicts import DENY, Verdict
from sentry.wait.fiber import Mode, TimedOut
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

MAX_QUESTIONS: Final = 1024
MAX_TEXT: Final = 1024
MAX_SECONDS: Final = 86400 * 7


class Ask:
    """`await ask(text, deadline=30, otherwise=DENY)`: what somebody outside says."""

    __slots__ = ("deadline", "otherwise", "text")

    def __init__(
        self, text: str = "", *, deadline: float = 60, otherwise: Verdict = DENY
    ) -> None:
        if not 0 < deadline <= MAX_SECONDS:
            raise ValueError(f"no deadline: {deadline} seconds")
        if not isinstance(otherwise, Verdict):
            raise TypeError(f"no verdict: {otherwise!r}")
        self.text = str(text)[:MAX_TEXT]
        self.deadline = deadline
        self.otherwise = otherwise

    def __await__(self) -> Generator[Any, Verdict, Verdict]:
        return (yield self)


class Question:
    """One that waits."""

    __slots__ = ("answer", "deadline_ns", "number", "queue", "text", "what", "who")

    def __init__(self, number: int, what: str, who: tuple[int, str], ask: Ask) -> None:
        self.number = number
        self.what = what
        """What is to be done, in words."""
        self.who = who
        """(process, program)."""
        self.text = ask.text
        self.deadline_ns = 0
        self.answer: Verdict | None = None
        self.queue = WaitQueue()


class Superseded(Exception):
    """Another policy has come, which is asked instead."""


class Outside:
    """All of a sandbox."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._last = 0
        self.questions: dict[int, Question] = {}
        self.changed = WaitQueue()
        """Told when a question comes or goes."""

    async def ask(self, ask: Ask, what: str, task: Task, who: tuple[int, str]) -> Verdict:
        """The answer; at the deadline, or if there are too many questions, what was said for that.

        Raises: Killed, Superseded.
        """
        if len(self.questions) >= MAX_QUESTIONS:
            return ask.otherwise
        self._last += 1
        question = Question(self._last, what, who, ask)
        question.deadline_ns = self._kernel.loop.now_ns() + int(ask.deadline * 1e9)
        self.questions[question.number] = question
        self.changed.notify_all()

        def answered() -> Verdict:
            if question.number not in self.questions:
                raise Superseded
            if question.answer is None:
                raise EAGAIN
            return question.answer

        try:
            verdict: Verdict = await until(
                answered, [question.queue], mode=Mode.KILLABLE, deadline_ns=question.deadline_ns
            )
        except TimedOut:
            return ask.otherwise
        finally:
            self.questions.pop(question.number, None)
            self.changed.notify_all()
        return verdict

    def answer(self, number: int, verdict: Verdict) -> None:
        """Somebody has decided. Raises: ENOENT."""
        question = self.questions.get(number)
        if question is None or question.answer is not None:
            raise ENOENT(f"there is no question {number}")
        question.answer = verdict
        question.queue.notify_all()

    def supersede(self) -> None:
        """Nobody is asked any more what the policy before has asked."""
        questions, self.questions = self.questions, {}
        for question in questions.values():
            question.queue.notify_all()
        self.changed.notify_all()
