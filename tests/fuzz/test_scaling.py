"""No operation of a program costs more, for each of n things, than a little more than for one.

RUNSC_SCALING_N (32) is the smallest number of each that is made; growth is looked at up to four
times that, and four times more in the full tests. What grows, and is known, stands in `KNOWN`.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.fuzz.resources import RESOURCES
from tests.fuzz.scaling import QUADRATIC, Bench, Resource, growth

N = int(os.environ.get("RUNSC_SCALING_N", "32"))
FULL_N = 4 * N
AS_LINUX = "Linux looks at all of them, too: "
KNOWN: dict[str, str] = {
    "stacked_mounts: mount": AS_LINUX + "follow_down()",
    "stacked_mounts: statfs": AS_LINUX + "follow_down()",
    "stacked_mounts: umount": AS_LINUX + "follow_down()",
    "overlays: mount": AS_LINUX + "has_locked_children(); 10 ms with 100,000 mounts",
    "threads: getrusage": AS_LINUX + "getrusage()",
    "locks_of_many: lock": AS_LINUX + "posix_lock_inode(); 5 ms with 20,000 holders",
    "lock_waiters: read /proc/locks": "each is compared with 64 others at most: 0.03 ms",
    "xattrs: set": "64 KiB of them at most: 1 ms",
    "addresses: add": "1,024 of an interface at most: 0.3 ms",
    "addresses: bind to each": "1,024 of an interface at most: 0.7 ms",
    "addresses: connect": "1,024 of an interface at most: 0.3 ms",
    "interfaces: make": "256 of a stack at most: 0.1 ms",
    "interfaces: delete": "256 of a stack at most: 0.1 ms",
    "bridge_ports: plug": "256 of a stack at most: 0.1 ms",
    "bridge_ports: unplug": "256 of a stack at most: 0.1 ms",
    "vlans: make": "128 of an interface at most: 0.4 ms",
    "vlans: turn on": "128 of an interface at most: 10 ms",
    "routing_rules: add": "256 at most: 0.3 ms",
    "routing_rules: remove": "256 at most: 0.2 ms",
    "routes: add": "4,096 at most: 0.4 ms",
    "sleepers: kill": "a step each",
}
"""What grows faster all the same, and why that is no more than it is. Times are those of a step."""

pytestmark = pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="needs sys.monitoring")


def check(resource: Resource, n: int) -> None:
    found = [one for one in growth(resource, n) if one.quadratic > QUADRATIC]
    unknown = [str(one) for one in found if one.name not in KNOWN]
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.__name__)
def test_work_grows_no_faster_than_n_log_n(resource: Resource) -> None:
    check(resource, N)


@pytest.mark.full
@pytest.mark.alike
@pytest.mark.timeout(600)
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.__name__)
def test_work_grows_no_faster_with_many(resource: Resource) -> None:
    check(resource, FULL_N)


def test_what_looks_at_all_others_is_found() -> None:
    def stacked_mounts(bench: Bench) -> None:
        bench.ok("mkdir", b"/tmp/m", 0o700)
        bench.each("mount", lambda _: bench.ok("mount", b"none", b"/tmp/m", b"tmpfs", 0, 0))
        bench.each("getpid", lambda _: bench.ok("getppid"))

    mount, getpid = growth(stacked_mounts, N)

    assert mount.quadratic > 0.5
    assert getpid.quadratic == 0


def test_the_count_is_the_same_each_time() -> None:
    assert growth(RESOURCES[0], N) == growth(RESOURCES[0], N)
