"""The loop: descriptors, timers in their order, and coroutines that wait."""

from __future__ import annotations

import os

import pytest

from runsc.shim.loop import READ, Loop, Promise, spawn


def turn(loop: Loop) -> None:
    """All that can be done now."""
    loop.after(0, loop.stop)
    loop._stopped = False
    loop.run()


@pytest.fixture
def loop() -> Loop:
    return Loop(lambda pid, status: None)


def test_a_descriptor_that_is_ready_is_told_of_until_it_is_forgotten(loop: Loop) -> None:
    reader, writer = os.pipe()
    heard: list[bytes] = []
    loop.watch(reader, READ, lambda _: heard.append(os.read(reader, 1)))
    os.write(writer, b"ab")

    turn(loop)
    loop.forget(reader)
    loop.forget(reader)
    turn(loop)

    assert heard == [b"a"]
    os.close(reader)
    os.close(writer)


def test_a_number_that_is_used_anew_is_not_told_of_what_was_ready_before(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    heard: list[int] = []

    def use_the_other_anew(fd: int) -> None:
        (other,) = {pipes[0][0], pipes[1][0]} - {fd}
        os.read(fd, 1)
        loop.forget(other)
        empty, writer = os.pipe()
        os.dup2(empty, other)
        os.close(empty)
        os.close(writer)
        loop.watch(other, READ, heard.append)

    for reader, writer in pipes:
        loop.watch(reader, READ, lambda _, fd=reader: use_the_other_anew(fd))
        os.write(writer, b"a")

    turn(loop)

    assert heard == []
    for fd in pipes[0] + pipes[1]:
        os.close(fd)


def test_timers_come_in_their_order_and_not_when_cancelled(loop: Loop) -> None:
    heard: list[str] = []
    loop.after(0.0, lambda: heard.append("a"))
    loop.after(0.0, lambda: heard.append("no")).cancel()
    loop.after(0.0, lambda: heard.append("b"))

    turn(loop)

    assert heard == ["a", "b"]


def test_coroutines_go_on_when_what_they_wait_for_is_there() -> None:
    promise: Promise[int] = Promise()
    heard: list[object] = []

    async def wait() -> None:
        heard.append(await promise)
        heard.append(await promise)

    spawn(wait())
    spawn(wait())
    assert heard == []
    promise.keep(5)

    assert heard == [5, 5, 5, 5]
    assert promise.settled


def test_an_error_is_raised_in_who_waits() -> None:
    promise: Promise[int] = Promise()
    heard: list[object] = []

    async def wait() -> None:
        try:
            await promise
        except ValueError as error:
            heard.append(str(error))

    spawn(wait())
    promise.break_(ValueError("gone"))

    assert heard == ["gone"]


def test_a_child_that_has_ended_has_its_number_until_it_has_been_told() -> None:
    told: dict[int, int] = {}

    def on_exit(pid: int, status: int) -> None:
        os.kill(pid, 0)
        told[pid] = status

    children = {
        os.posix_spawn("/bin/sh", ["sh", "-c", words], {}): status
        for words, status in (("exit 3", 3 << 8), ("kill -9 $$", 9))
    }
    for pid in children:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    Loop(on_exit).reap()

    assert told == children
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
