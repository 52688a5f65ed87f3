"""A hundred broken snapshots, and hundreds of hostile ones: a clear error each, or a container."""

from __future__ import annotations

import copy
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runsc.containers import snapshots
from tests.abi.test_abi import compile_program, with_everything
from tests.e2e.bundle import REPOSITORY, Bundle
from tests.e2e.pod import Pod, joins
from tests.e2e.test_pods_snapshots import COUNTER, has, lines, shares
from tests.full.hostile_images import Image, cut, flipped, mutated
from tests.full.roundtrip import RoundTrip

PROGRAM, CALL = "exec_programs", 320
WITH_MOUNTS, ITS_CALL = "ns_mounts_kept", 400
WITH_LAYERS = "files_overlay_kept"
FILES = (snapshots.MANIFEST, snapshots.OBJECTS, snapshots.PAGES)
SCRIPT = (
    "echo kept >/dev/shm/file; exec 4</dev/shm/file; mkfifo /dev/shm/pipe;"
    " exec 5<>/dev/shm/pipe; (sleep 1000 | cat) & nc -ll -p 7000 -e cat & " + COUNTER
)

pytestmark = [pytest.mark.full, pytest.mark.alike]


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[RoundTrip]:
    yield from written(PROGRAM, CALL, tmp_path_factory.mktemp("images"), busybox)


@pytest.fixture(scope="module")
def trip_with_mounts(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path
) -> Iterator[RoundTrip]:
    yield from written(WITH_MOUNTS, ITS_CALL, tmp_path_factory.mktemp("images"), busybox)


@pytest.fixture(scope="module")
def trip_with_layers(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path
) -> Iterator[RoundTrip]:
    yield from written(WITH_LAYERS, ITS_CALL, tmp_path_factory.mktemp("images"), busybox)


def written(name: str, call: int, folder: Path, busybox: Path) -> Iterator[RoundTrip]:
    program = compile_program(name, folder)
    bundle = Bundle(folder / "bundle", busybox).args(f"/abi/{name}").configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": f"/abi/{name}", "source": str(program), "options": ["bind", "ro"]}
    )
    made = RoundTrip(bundle, "kvm", folder)
    assert made.hold(call)
    done = made.write()
    assert done.returncode == 0, done.stderr
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
    restored(trip, objects, mutated(objects, random.Random(seed)), tmp_path)


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(100))
def test_restore_hostile_mounts_are_an_error_or_a_container(
    seed: int, trip_with_mounts: RoundTrip, tmp_path: Path
) -> None:
    objects = copy.deepcopy(Image(trip_with_mounts.image).objects)
    what = mutated(objects["mount_table"], random.Random(seed))
    restored(trip_with_mounts, objects, what, tmp_path)


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(100))
def test_restore_hostile_overlays_are_an_error_or_a_container(
    seed: int, trip_with_layers: RoundTrip, tmp_path: Path
) -> None:
    objects = copy.deepcopy(Image(trip_with_layers.image).objects)
    what = mutated([each for each in objects["trees"] if "overlay" in each], random.Random(seed))
    restored(trip_with_layers, objects, what, tmp_path)


def restored(trip: RoundTrip, objects: Any, what: str, tmp_path: Path) -> None:
    """It is, or there is an error that a user can read."""
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


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Pod]:
    made = Pod(tmp_path_factory.mktemp("pod"), busybox, "kvm")
    made.flags = ["--repl"]
    made.run("pause", "exec sleep 1000")
    app = made.run("app", SCRIPT, change=joins(**shares(made)))
    lines(app, "app", 5)
    app.ok("checkpoint", f"--image-path={made.folder / 'image'}", "app")
    app.ok("delete", "app")
    del made.clients["app"]
    made.prepared("again", SCRIPT, change=joins(**shares(made))).bundle.write()
    yield made
    del made.clients["again"]
    made.end()


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(100))
def test_restore_hostile_image_in_a_pod_leaves_that_as_it_was(
    seed: int, pod: Pod, tmp_path: Path
) -> None:
    image, before = Image(pod.folder / "image"), has(pod.client("pause"))
    objects = copy.deepcopy(image.objects)
    what = mutated(objects, random.Random(seed))
    hostile = image.with_objects(tmp_path / "image", objects)
    client = pod.client("again")
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = client.command(
            "restore", "--detach", f"--bundle={client.bundle.path}", f"--image-path={hostile}",
            "again",
        )  # fmt: skip
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, cwd=REPOSITORY,
            check=False,
        ).returncode  # fmt: skip
    if code:
        told = log.read_text(errors="replace")
        assert "cannot restore" in told or "damaged" in told, (what, told)
    else:
        client.ok("delete", "--force", "again")
    assert "Traceback" not in (pod.folder / "debug.log").read_text(), what
    deadline = time.monotonic() + 10
    while (now := has(pod.client("pause"))) != before:
        assert time.monotonic() < deadline, (what, code, before, now)
