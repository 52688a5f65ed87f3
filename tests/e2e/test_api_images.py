"""Sandboxes of the Python API that are made of images."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import time
from pathlib import Path

import pytest

from runsc import AsyncSandbox, Sandbox, SandboxError
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.sandboxes import FLAGS, noted
from tests.unit.runsc.images.making import archive, file, folder, layout, packed

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
CONFIG = {
    "Env": ["GREETING=hello"],
    "Entrypoint": ["no-such-program"],
    "WorkingDir": "/work",
    "User": "web:www",
}
UPPER = archive(
    folder("work", uid=101),
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:101:102::/work:/bin/sh\n"),
    file("etc/group", b"root:x:0:\nwww:x:33:\n"),
)


@pytest.fixture
def image(tmp_path: Path, busybox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """busybox, and a layer above it, as skopeo's oci-archive; the cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lower = subprocess.run(["tar", "-C", busybox, "-cf", "-", "."], check=True, capture_output=True)
    made = tmp_path / "image.tar"
    made.write_bytes(packed(layout(lower.stdout, UPPER, pack=gzip.compress, config=CONFIG)))
    return made


def test_an_image_says_environment_user_and_working_directory(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (image, "image.tar"):
        with Sandbox.create(image=given, state=tmp_path / "state", flags=FLAGS) as sandbox:
            result = sandbox.commands.run("echo $GREETING; pwd; id -u; id -g; touch mine; ls")
            assert result.stdout.split() == ["hello", "/work", "101", "33", "mine"]
            assert [change.path for change in sandbox.files.diff()] == ["/work/mine"]
            assert sandbox.commands.run("id -u", user="root").stdout == "0\n"


def test_who_asks_hears_how_far_an_image_is(image: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []

    def make() -> None:
        with Sandbox.create(
            image=image, state=tmp_path / "state", flags=FLAGS,
            progress=lambda *told: heard.append(told),
        ):  # fmt: skip
            pass

    make()
    layers = ["unpacking layer 1 of 2", "unpacking layer 2 of 2"]
    assert [what for what, done, total in heard if done == total] == layers
    assert all(0 <= done <= total for _, done, total in heard)
    heard.clear()
    make()
    assert heard == []  # the root is there


def test_what_goes_wrong_with_who_is_told_ends_it(image: Path, tmp_path: Path) -> None:
    def fails(*told: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Sandbox.create(image=image, state=tmp_path / "state", flags=FLAGS, progress=fails)
    assert noted(tmp_path) == []


def test_what_is_no_image_says_so(tmp_path: Path, image: Path) -> None:
    (tmp_path / "words").write_bytes(b"words" * 1000)
    for given in (tmp_path / "words", tmp_path / "none.tar"):
        with pytest.raises(SandboxError, match="image"):
            Sandbox.create(image=given, state=tmp_path / "state", flags=FLAGS)
    assert noted(tmp_path) == []


def test_who_does_not_want_it_any_more_need_not_wait_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, engines = tmp_path / "bin", tmp_path / "asked"
    source.mkdir()
    podman = source / "podman"
    podman.write_text(f"#!/bin/sh\necho > {engines}\nexec sleep 1000\n")
    podman.chmod(0o755)
    monkeypatch.setenv("PATH", f"{source}:{os.environ['PATH']}")

    async def run() -> float:
        task = asyncio.create_task(
            AsyncSandbox.create(image="some", state=tmp_path / "state", flags=FLAGS)
        )
        while not engines.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(run()) < 20  # of the minute that an engine may take to answer
    assert noted(tmp_path) == []
