"""Time in a sandbox: it stands still, runs, jumps, and goes by from timer to timer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import Sandbox, SandboxError
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.sandboxes import made, noted

DAY_S = 86400


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path, platform: str) -> Iterator[Sandbox]:
    with made(tmp_path, busybox, platform) as found:
        yield found
    assert noted(tmp_path) == []


def test_time_stands_still_jumps_and_is_set(sandbox: Sandbox) -> None:
    clock, run = sandbox.clock, sandbox.commands.run
    clock.freeze()
    assert clock.speed == 0
    clock.set("2030-01-01 00:00")
    assert len(set(run("for i in 1 2 3; do date -u +%s; done").stdout.split())) == 1
    before = float(run("cut -d' ' -f1 /proc/uptime").stdout)
    with run("sleep 100000; date -u '+%F %T'", background=True) as sleeper:
        clock.advance(0)  # until it sleeps
        clock.jump("90000s")
        assert clock.now().isoformat() == "2030-01-02T01:00:00+00:00"
        clock.advance("10000s")
        assert sleeper.wait().stdout == "2030-01-02 03:46:40\n"
    after = float(run("cut -d' ' -f1 /proc/uptime").stdout)
    assert after - before == pytest.approx(100_000, abs=0.02)
    clock.speed = 1
    with pytest.raises(SandboxError, match="70 years"):
        clock.jump("36500 days")
    with pytest.raises(ValueError, match="speed"):
        clock.speed = -1


def test_advance_goes_from_timer_to_timer(sandbox: Sandbox) -> None:
    sandbox.clock.freeze()
    sandbox.clock.set("2030-01-01 00:00")
    hourly = "while :; do sleep 3600; date -u '+%d %H' >> /log; done"
    daily = "while :; do sleep 86400; date -u '+daily %d' >> /log; done"
    run = sandbox.commands.run
    with run(hourly, background=True), run(daily, background=True):
        sandbox.clock.advance("2 days")
    lines = sandbox.files.read("/log").splitlines()
    assert [line for line in lines if not line.startswith("daily")] == [
        f"{hour // 24 + 1:02} {hour % 24:02}" for hour in range(1, 49)
    ]
    assert [line for line in lines if line.startswith("daily")] == ["daily 02", "daily 03"]


def test_advance_waits_for_who_computes_and_ends_where_it_is(sandbox: Sandbox) -> None:
    sandbox.clock.freeze()
    now = sandbox.clock.now()
    with sandbox.commands.run("while :; do :; done", background=True) as busy:
        with pytest.raises(SandboxError, match="answer"):
            sandbox.clock.advance("1 day", timeout=0.3)
        assert sandbox.clock.now() == now
        busy.kill()
        busy.wait()
    sandbox.clock.advance("1 day")
    assert (sandbox.clock.now() - now).total_seconds() == DAY_S


def test_advance_waits_for_who_is_paused(sandbox: Sandbox) -> None:
    sandbox.clock.freeze()
    now = sandbox.clock.now()
    with sandbox.commands.run("sleep 60; date >> /log; sleep 60", background=True) as program:
        sandbox.pause()
        with pytest.raises(SandboxError, match="answer"):
            sandbox.clock.advance("1 day", timeout=0.3)
        assert sandbox.clock.now() == now
        sandbox.resume()
        sandbox.clock.advance("1 day")
        assert program.wait().exit_code == 0


def test_every_kind_of_sleep_and_timer_is_in_this_time(tmp_path: Path, debian: Path) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    code = """
import os, queue, select, signal, sys, threading, time
day, reports = 86400.0, []
def timed(name, wait):
    def run():
        began = time.monotonic(), time.time()
        wait()
        reports.append((name, round(time.monotonic() - began[0]), round(time.time() - began[1])))
    thread = threading.Thread(target=run)
    thread.start()
    return thread
fd = os.timerfd_create(time.CLOCK_REALTIME)
os.timerfd_settime(fd, initial=day)
at = os.timerfd_create(time.CLOCK_MONOTONIC)
os.timerfd_settime(at, flags=os.TFD_TIMER_ABSTIME, initial=time.monotonic() + day)
epoll = select.epoll()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGUSR1])
signal.setitimer(signal.ITIMER_REAL, day)
threads = [
    timed("sleep", lambda: time.sleep(day)),
    timed("poll", lambda: select.poll().poll(day * 1000)),
    timed("select", lambda: select.select([], [], [], day)),
    timed("epoll", lambda: epoll.poll(day)),
    timed("futex", lambda: threading.Event().wait(day)),
    timed("timerfd", lambda: os.read(fd, 8)),
    timed("timerfd at", lambda: os.read(at, 8)),
    timed("alarm", lambda: signal.sigwait([signal.SIGALRM])),
    timed("sigtimedwait", lambda: signal.sigtimedwait([signal.SIGUSR1], day)),
]
print("ready", flush=True)
cpu = time.process_time()
for each in threads: each.join()
assert time.process_time() - cpu < 60
for name, *took in sorted(reports): print(name, *took)
"""
    with made(tmp_path, debian) as sandbox:
        sandbox.clock.freeze()
        with sandbox.commands.run(["python3", "-c", code], background=True) as program:
            lines = program.stdout.lines()
            assert next(lines) == "ready"
            sandbox.clock.advance("25 hours")
            told = [line.rsplit(" ", 2) for line in lines]
        assert len(told) == 9, told
        assert {name for name, *took in told if took != ["86400", "86400"]} == set()


@pytest.mark.full
def test_time_never_goes_back_while_it_is_shaped(tmp_path: Path, debian: Path) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    code = """
import sys, threading, time
print("ready", flush=True)
ended, wrong = threading.Event(), []
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
last = time.monotonic_ns()
while not ended.is_set():
    now = time.monotonic_ns()
    if now < last: wrong.append((last, now))
    last = now
print(len(wrong), wrong[:3])
"""
    with (
        made(tmp_path, debian) as sandbox,
        sandbox.commands.run(["python3", "-c", code], background=True) as program,
    ):
        lines = program.stdout.lines()
        assert next(lines) == "ready"
        for number in range(40):
            sandbox.clock.speed = (0, 1000, 1, 0.001, 10_000)[number % 5]
            sandbox.clock.jump(number / 1000)
        program.close_stdin()
        assert next(lines) == "0 []"


def test_clock_is_shaped_from_the_command_line(tmp_path: Path, busybox: Path) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    script = "sleep 100000; echo done; sleep 10000000"
    client = Client(Bundle(tmp_path / "bundle", busybox).args("sh", "-c", script))
    client.create("c")
    client.ok("start", "c")
    client.ok("clock", "freeze", "c")
    client.ok("clock", "set", "c", "2030-01-01")
    assert "wall clock: 2030-01-01 00:00:00.000000 UTC" in client.ok("clock", "show", "c")
    assert "speed:      0\n" in client.ok("clock", "jump", "c", "1", "hour")
    assert "soon" in client.error("clock", "jump", "c", "soon")
    assert "speed:      60\n" in client.ok("clock", "speed", "c", "60")
    client.ok("clock", "advance", "c", "2 days")
    assert client.output("c") == "done\n"
    client.ok("delete", "--force", "c")
