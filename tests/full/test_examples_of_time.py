"""Examples that take long: a database on a flaky disk, a year of cron."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.flaky_disk import flaky_disk
from examples.year_of_cron import year_of_cron
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.sandboxes import made

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_database_keeps_what_it_said_on_a_flaky_disk(
    tmp_path: Path, debian: Path, seed: int
) -> None:
    with made(tmp_path, debian) as sandbox:
        said, there, faults = flaky_disk.attempt(sandbox, seed)
    assert set(said) <= set(there)
    assert faults > 10
    assert 0 < len(said) < flaky_disk.ROWS


def test_year_of_cron_has_every_job_at_its_time(tmp_path: Path, debian: Path) -> None:
    with made(tmp_path, debian) as sandbox:
        lines = [line.split() for line in year_of_cron.simulated(sandbox, 365)]
    daily = [day for kind, day, at in lines if kind == "daily" and at == "12:15"]
    assert len(daily) == len(set(daily)) == 365
    assert [day for kind, day, _ in lines if kind == "monthly"][:2] == ["2027-02-01", "2027-03-01"]
    assert sum(kind == "monday" and at == "06:30" for kind, _, at in lines) == 52
    assert len(lines) == 365 + 52 + 12


def test_busyboxs_cron_wakes_each_minute(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox) as sandbox:
        sandbox.clock.freeze()
        sandbox.clock.set("2027-01-01 00:00")
        sandbox.files.write("/crontabs/root", "*/20 * * * * date -u '+%H:%M' >> /log\n")
        crond = ["crond", "-f", "-c", "/crontabs", "-L", "/dev/null"]
        with sandbox.commands.run(crond, background=True, env={"TZ": "UTC"}):
            sandbox.clock.advance("1 day")
        found = sandbox.files.read("/log").splitlines()
    assert len(found) in (71, 72)  # with the last one, or in the middle of it
    assert found[:4] == ["00:20", "00:40", "01:00", "01:20"]
