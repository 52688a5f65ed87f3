"""Figures for Prometheus."""

from __future__ import annotations

from sentry.control.metrics import MAX_NUMBER, METRICS, labels, of
from tests.world import World


def test_each_figure_is_one_that_is_described() -> None:
    names = {metric.name for metric in METRICS}
    assert len(names) == len(METRICS)
    with World() as world:
        world.kernel.container.id = "web"
        world.kernel.counters.unknown(134)
        found = of(world.kernel)
    assert {name.partition("{")[0] for name in found} <= names
    assert found['unimplemented_syscalls{sysno="134",name="uselib"}'] == 1
    assert found['memory_limit_bytes{container="web"}'] > 0
    assert found['oom_kills{container="web"}'] == 0


def test_what_a_label_may_not_have_is_escaped() -> None:
    assert labels(a='x"y\\z\n') == '{a="x\\"y\\\\z\\n"}'


def test_a_program_cannot_make_up_figures_without_end() -> None:
    with World() as world:
        for number in range(1 << 16):
            world.kernel.counters.unknown(number)
        found = of(world.kernel)
    assert len(found) < MAX_NUMBER + 100
    assert found['unimplemented_syscalls{sysno="other",name=""}'] == (1 << 16) - MAX_NUMBER
