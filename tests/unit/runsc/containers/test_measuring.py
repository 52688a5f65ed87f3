"""Figures of sandboxes between two samples, and sandboxes that come, go, and say strange things."""

from __future__ import annotations

from pathlib import Path

import pytest

from runsc.containers import listener, measuring
from runsc.containers.container import Store
from runsc.containers.measuring import Figures, Watch, figures
from runsc.containers.sampling import Sample
from sentry.control.answers import Cost
from sentry.control.protocol import Reply, Request, decode, encode
from tests.unit.runsc.containers.states import running


def _sample(at_s: int, elapsed_ns: int = 10**9, **counts: int) -> Sample:
    named = {f'{name}{{container="{n}"}}': value for n in "ab" for name, value in counts.items()}
    return Sample(at_s * 10**9, named, {"read": Cost(50, 1, 1)}, Cost(0, 0, 0), elapsed_ns)


def test_figures_are_sums_and_rates_of_all_containers() -> None:
    first = _sample(1, cpu_user_ns=0, page_faults=10, tasks=9)
    found = figures(first, _sample(3, cpu_user_ns=10**9, page_faults=20, tasks=2, memory_bytes=7))
    assert found == Figures(tasks=4, cpu=1.0, calls=50.0, faults=10.0, memory=14)


def test_figures_that_go_back_or_come_at_once_are_none() -> None:
    found = figures(_sample(3, page_faults=9), _sample(1, elapsed_ns=0, page_faults=1))
    assert (found.faults, found.calls) == (0.0, -1.0)


def test_a_sandbox_that_comes_is_asked_and_one_that_goes_is_forgotten(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    watch = Watch(store)
    watch.look()
    assert watch.sandboxes == {}
    running(store, "one")
    with listener.listen(store.path("one", "control.sock")) as listening:
        watch.look()
        listening.setblocking(True)
        sandbox, _ = listening.accept()
        with sandbox:
            for n in (1, 2):
                assert decode(sandbox.recv(9999), Request).op == "metrics"
                sandbox.sendall(encode(Reply(counts={"tasks": n})))
                watch.wait(0)
                if n == 1:
                    assert decode(sandbox.recv(9999), Request).op == "profile"
                    assert not watch.is_measured
                    sandbox.sendall(b'{"error": "no"}\n')
                    watch.wait(0)
                    sampler = watch.sandboxes["one"].sampler
                    assert sampler is not None
                    sampler.due = 0
                    sampler.tick()
        assert watch.is_measured
        assert watch.sandboxes["one"].figures.tasks == 2
    store.remove("one")
    watch.look()
    assert watch.sandboxes == {}
    watch.close()


def test_a_sandbox_that_cannot_be_asked_is_there_without_figures(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    running(store, "deaf")
    watch = Watch(store)
    watch.look()
    watch.wait(0)
    assert watch.sandboxes["deaf"].figures == Figures()
    assert watch.is_measured


def test_no_more_than_so_many_are_asked(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    for n in range(measuring.MOST + 3):
        running(store, f"c{n}")
    watch = Watch(store)
    watch.look()
    assert len(watch.sandboxes) == measuring.MOST


def test_a_sandbox_that_accepts_nobody_holds_up_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "CONNECT_S", 0.01)
    store = Store(str(tmp_path / "root"))
    running(store, "one")
    with listener.listen(store.path("one", "control.sock")) as listening:
        listening.listen(0)
        with listener.connect(store.path("one", "control.sock")):
            watch = Watch(store)
            watch.look()
            assert watch.sandboxes["one"].sampler is None
            assert watch.is_measured
            watch.close()


def test_a_sandbox_that_accepts_again_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "CONNECT_S", 0.01)
    store = Store(str(tmp_path / "root"))
    for name in ("one", "two"):
        running(store, name)
    path = store.path("one", "control.sock")
    watch = Watch(store)
    with listener.listen(path) as listening:
        listening.listen(0)
        with listener.connect(path):
            watch.look()
            assert not watch.sandboxes["one"].is_asked
            listening.accept()[0].close()
        for _ in watch.sandboxes:
            watch.look()
        assert watch.sandboxes["one"].is_asked
        listening.accept()[0].close()  # it ends the connection
        watch.wait(0)
        assert not watch.sandboxes["one"].is_asked
        for _ in watch.sandboxes:
            watch.look()
        assert watch.sandboxes["one"].is_asked
    watch.close()
