"""Root file systems and platforms for the tests that run containers; no test is about time."""

from __future__ import annotations

import faulthandler
import gc
import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sentry.syscalls import late
from tests import huge_pages, resumed
from tests.e2e.bundle import REPOSITORY, STEPS, Bundle, kvm_is_usable
from tests.order import a_third, arranged
from tests.world import STEPS_ARE_BOUNDED

settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")
AGAIN = bool(os.environ.get("RUNSC_TEST_AGAIN"))
"""The same tests run elsewhere, too, in another way (interpreter, sanitizers): all are alike."""
late.import_all()  # in a sandbox no step waits for a disk
STDERR = pytest.StashKey[int]()
"""Of the whole run: a test's own is kept until its end."""
CLEANUP_S = 120
"""How long a test may take to clear away what it made when its time is over."""


def pytest_configure(config: pytest.Config) -> None:
    resumed.configure(config)
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        config.stash[STDERR] = os.dup(2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What may take long comes first, in the piece of each worker."""
    third = os.environ.get("RUNSC_TEST_THIRD")
    if third:
        items[:], left_out = a_third(items, _is_alike, int(third))
        config.hook.pytest_deselected(items=left_out)
    before = config.pluginmanager.getplugin(resumed.NAME)
    if before:
        items[:], left_out = before.parted(items)
        config.hook.pytest_deselected(items=left_out)
    usual_s = float(config.getini("timeout"))

    def boots(item: pytest.Item) -> bool:
        return item.get_closest_marker("svm") is not None

    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = arranged(items, _limit_s, boots, usual_s, workers)


def _limit_s(item: pytest.Item) -> float:
    mark, config = item.get_closest_marker("timeout"), item.config
    return float(mark.args[0] if mark else config.getoption("timeout") or config.getini("timeout"))


def _is_alike(item: pytest.Item) -> bool:
    return AGAIN or item.get_closest_marker("alike") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that does not end when its time is over, or whose clearing away does not, ends the
    process that runs it: all stacks are told, and the run goes on without it."""
    limit_s = _limit_s(item) + CLEANUP_S
    faulthandler.dump_traceback_later(limit_s, exit=True, file=item.config.stash[STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_collection_finish() -> None:
    """What has been collected is never garbage, and is in memory to the end, in each fork."""
    gc.collect()
    gc.freeze()
    huge_pages.collapse()


@pytest.fixture(scope="module", autouse=True)
def only_its_own_garbage() -> None:
    """Who collects in a test need not look at the thousands of others, which are never garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_step_is_long() -> Iterator[None]:
    """A step of a kernel thread that takes too much CPU time fails the test whose sandbox it was.

    Those of `tests.world` say so themselves.
    """
    before = STEPS.stat().st_size
    yield
    if STEPS_ARE_BOUNDED and STEPS.stat().st_size > before:
        with STEPS.open(encoding="utf-8") as file:
            file.seek(before)
            pytest.fail(file.read())


def rootfs_of(name: str) -> Path:
    """From the environment (ci/test sets it), else made by ci/rootfs."""
    known = os.environ.get(f"RUNSC_ROOTFS_{name.upper()}")
    if known:
        return Path(known)
    made = subprocess.run(
        [REPOSITORY / "ci" / "rootfs", name], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no {name} root file system: {made.stderr[-200:]}")
    return Path(made.stdout.strip())


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A root file system of a static busybox."""
    return rootfs_of("busybox")


@pytest.fixture(scope="session")
def debian() -> Path:
    """A root file system of Debian packages, with bash and python3."""
    return rootfs_of("debian")


@pytest.fixture(scope="session")
def programs() -> Path:
    """A Debian with compilers, debuggers, editors, archivers, git and apt."""
    return rootfs_of("programs")


@pytest.fixture(scope="session")
def languages() -> Path:
    """A Debian with compilers and run times of many languages, and servers."""
    return rootfs_of("languages")


@pytest.fixture(scope="session")
def services() -> Path:
    """A Debian with systemd, sshd and cron."""
    return rootfs_of("services")


@pytest.fixture(scope="session")
def cpython() -> Path:
    """A root file system of python3 with its own test suite."""
    return rootfs_of("cpython")


@pytest.fixture(params=["kvm", "unicorn"])
def platform(request: pytest.FixtureRequest) -> str:
    """Each platform in turn."""
    if request.param == "kvm" and not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    return str(request.param)


@pytest.fixture
def bundle(tmp_path: Path, busybox: Path) -> Bundle:
    """A bundle over the busybox root file system."""
    return Bundle(tmp_path / "bundle", busybox)
