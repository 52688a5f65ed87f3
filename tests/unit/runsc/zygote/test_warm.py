"""What a zygote has imported, and that forks leave it as it is."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, os, sys
from runsc.zygote import warm

warm.prepared()
names = ("runsc.launch.launch", "runsc.shim.daemon", "runsc.api.keeper", "gofer.main",
         "sentry.boot.sandbox", "sentry.fs.fuse", "runsc.commands.do", "runsc.__main__")
needless = ("runsc.providers", "runsc.pytest_plugin", "runsc.report", "rich", "asyncio", "pytest")
counted = sys.getrefcount(json) < 1 << 30
mapped = sum(line.rstrip().endswith(".pyc") for line in open("/proc/self/maps"))
missing = [name for name in names if name not in sys.modules]
imported = [name for name in needless if name in sys.modules]
print(json.dumps([missing, imported, counted, mapped < 10]))
"""


def test_all_that_a_start_takes_is_imported_not_mapped_and_counts_no_references() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )

    assert json.loads(done.stdout) == [[], [], sys.version_info < (3, 12), True]


CALLS = """
from runsc.zygote import warm
from sentry.syscalls.registry import CALLS, TABLE

warm._import_below("sentry")
warm._know_calls()
print(sum(each is not None for each in TABLE))
print(sum(each is not None and CALLS[each.number] is each.call for each in TABLE))
"""


def test_calls_are_as_after_the_first_of_each() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLS], check=True, capture_output=True, text=True, timeout=60
    )

    declared, known = map(int, done.stdout.split())
    assert declared == known > 300


REACHED = """
import gc
from types import CodeType

def reached():
    seen, left = {}, gc.get_objects()
    while left:
        each = left.pop()
        if id(each) not in seen and each is not seen and each is not left:
            seen[id(each)] = each
            left += gc.get_referents(each)
            if isinstance(each, CodeType):  # which the collector knows nothing of
                left += (each.co_consts, each.co_names, each.co_qualname, each.co_filename)
    return list(seen.values())
"""
PAGES = REACHED + """
import json, sys
from runsc.zygote import warm

def pages(objects):
    return {id(each) // 4096 for each in objects}

class Small:
    __slots__ = ("a", "b")

gone = [[bytes(n) for n in range(480)] for _ in range(50)]
kept = [each.pop() for each in gone for _ in range(0, 480, 3)]
del gone
before = pages(reached()) | pages(kept)
held = warm._filled()
made = [bytes(n) for n in range(15, 480) for _ in range(3)] + [Small() for _ in range(100)]
made += [float(n) for n in range(100)] + [object() for _ in range(100)]
print(json.dumps([len(pages(made) & before), len(held)]))
"""


def test_what_forks_allocate_is_hardly_on_pages_with_what_was_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PAGES], check=True, capture_output=True, text=True, timeout=60
    )

    shared, held = json.loads(done.stdout)
    assert shared < 10  # what the work itself has freed
    assert held < 100_000


LARGE = REACHED + """
import json
from runsc import host

gone = [bytes(n) for n in range(600, 9000, 50)]
kept = gone[::2]
del gone
before = {id(each) // 4096 for each in reached()}
host.fill_heap()
made = [bytes(n) for n in range(600, 9000, 100)]
print(json.dumps(len({id(each) // 4096 for each in made} & before)))
"""


def test_what_forks_allocate_above_what_cpython_pools_is_hardly_there_either() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE], check=True, capture_output=True, text=True, timeout=60
    )

    assert json.loads(done.stdout) < 5
