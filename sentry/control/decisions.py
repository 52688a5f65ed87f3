"""What a sandbox's owner has decided about it: for another one in its place, or of its snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sentry.config import PolicyConfig
from sentry.control.orders import Decided
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from sentry.control.watchdog import Watchdog
    from sentry.inject.plan import Injection
    from sentry.kernel.kernel import Kernel
    from sentry.net.inet.egress import Egress
    from sentry.policy.engine import Engine


def of(kernel: Kernel) -> Decided:
    """As it is now."""
    injection = cast("Injection | None", kernel.services.injection)
    injected = injection.states() if injection is not None else ()
    net = kernel.first.net
    egress = cast("Egress | None", net.stack.egress) if not net.is_untouched else None
    return Decided(_policy(kernel), tuple(injected), egress.text if egress is not None else None)


def _policy(kernel: Kernel) -> PolicyConfig | None:
    engine = cast("Engine | None", kernel.policy)
    module = engine.module if engine is not None else None
    return PolicyConfig(module.name, module.source, module.learns) if module is not None else None


def prepare(decided: Decided) -> None:
    """What `put` imports is there: once for all forks of this process."""
    if decided.injected:
        from sentry.inject import plan  # noqa: F401, PLC0415  few want any
    if decided.policy is not None:
        from sentry.control import policies  # noqa: F401, PLC0415  few have one
        from sentry.policy import engine  # noqa: F401, PLC0415


def put(kernel: Kernel, watchdog: Watchdog, decided: Decided) -> None:
    """That holds from now on, but for what may leave. A policy that is there already goes on.

    Preconditions: no program runs. Raises: EINVAL.
    """
    if decided.injected or kernel.services.injection is not None:
        from sentry.inject import plan  # noqa: PLC0415  few want any

        plan.of(kernel).go_on_from(decided.injected)
    if decided.policy != _policy(kernel):
        from sentry.control import policies  # noqa: PLC0415  few have one

        engine = policies.engine_of(kernel, watchdog)
        config = decided.policy
        module = policies.read(engine, config) if config is not None else None
        at_once(policies.use(kernel, engine, module))
