"""Who and when."""

from __future__ import annotations

import json
import time

from sentry.watch import context
from sentry.watch import messages as m
from tests.unit.watch.conftest import Watched


def test_every_context_field_is_told(world: Watched) -> None:
    program = world.program()
    world.kernel.container.id = "web"
    program.ok("mkdir", b"/srv", 0o755)
    program.ok("chdir", b"/srv")
    program.task.comm = b"sh\xff"
    before = time.time_ns()
    world.listen("syscall/getppid/enter", context=context.FIELDS)
    program.ok("getppid")
    who = world.records(m.Syscall)[0].context_data
    assert who is not None
    assert before <= who.time_ns <= time.time_ns()
    assert 0 < who.thread_group_start_time_ns <= who.thread_start_time_ns <= who.time_ns
    task = program.task
    assert (who.thread_id, who.thread_group_id) == (task.tid, task.group.tgid)
    assert (who.container_id, who.cwd, who.process_name) == ("web", "/srv", "sh\\xff")
    assert who.credentials == m.Credentials()


def test_the_program_and_who_has_made_the_process_are_in_json(world: Watched) -> None:
    program = world.program()
    program.task.comm = b"sh"
    child = program.fork()
    there = world.listen("syscall/getppid/enter", context=("ancestry", "program"), sink="json")
    child.ok("getppid")
    world.watch.flush()
    who = json.loads(there.recv(4096))["record"]["context_data"]
    assert who["ancestry"][0] == f"{program.task.group.tgid} sh"
    assert "program" not in who  # nobody has called execve(2) in this world


def test_users_are_told_when_they_change(world: Watched) -> None:
    program = world.program()
    program.ok("setresgid", 7, 8, 9)
    program.ok("setresuid", 4, 5, 6)
    world.listen("syscall/getppid/enter", context=("credentials",))
    program.ok("getppid")
    who = world.records(m.Syscall)[0].context_data
    assert who == m.ContextData(credentials=m.Credentials(4, 5, 6, 7, 8, 9))
