"""A hundred broken snapshots, and hundreds of hostile ones: a clear error each, or a container."""

from __future__ import annotations

import copy
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.containers import snapshots
from tests.abi.test_abi import compile_program, with_everything
from tests.e2e.bundle import Bundle
from tests.full.hostile_images import Image, cut, flipped, mutated
from tests.full.roundtrip import RoundTrip

PROGRAM, CALL = "exec_programs", 320
FILES = (snapshots.MANIFEST, snapshots.OBJECTS, snapshots.PAGES)

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[RoundTrip]:
    folder = tmp_path_factory.mktemp("images")
    program = compile_program(PROGRAM, folder)
    bundle = Bundle(folder / "bundle", busybox).args(f"/abi/{PROGRAM}").configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": f"/abi/{PROGRAM}", "source": str(program), "options": ["bind", "ro"]}
    )
    made = RoundTrip(bundle, "kvm", folder)
    assert made.hold(CALL)
    written = made.write()
    assert written.returncode == 0, written.stderr
    made.delete()
    yield made
    made.delete()


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(100))
def test_restore_broken_image_is_a_clear_error(
    seed: int, trip: RoundTrip, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    good = trip.image
    trip.image = Image(good).copy(tmp_path / "image")
    try:
        rng.choice((flipped, cut))(trip.image / rng.choice(FILES), rng)
        done = trip.read()
    finally:
        trip.image = good
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "failed" not in done.stderr
    assert any(word in done.stderr for word in ("damaged", "another size", "ends early", "version",
                                                "no snapshot")), done.stderr  # fmt: skip


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(200))
def test_restore_hostile_image_is_an_error_or_a_container(
    seed: int, trip: RoundTrip, tmp_path: Path
) -> None:
    objects = copy.deepcopy(Image(trip.image).objects)
    what = mutated(objects, random.Random(seed))
    good = trip.image
    trip.image = Image(good).with_objects(tmp_path / "image", objects)
    try:
        done = trip.read()
    except subprocess.TimeoutExpired:  # its program waits for something
        return
    finally:
        trip.image = good
        trip.delete()
    assert "Sentry failed" not in done.stderr and "Traceback" not in done.stderr, what
    if "level=error" in done.stderr:
        assert "cannot restore" in done.stderr or "damaged" in done.stderr, (what, done.stderr)
