"""Programs of tests/abi are written in the middle, at some call, and read: they still pass."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.abi.test_abi import PROGRAMS, compile_program, wants, with_everything
from tests.e2e.bundle import Bundle
from tests.full.roundtrip import RoundTrip

CALLS = (320, 160, 80, 40, 20, 10, 5)
WITHOUT = ("fuse_", "net_tun_")
"""They talk to what is not in the snapshot."""


@pytest.mark.alike
@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in PROGRAMS if not name.startswith(WITHOUT)])
def test_abi_program_written_in_the_middle_passes(
    name: str, tmp_path: Path, busybox: Path, platform: str
) -> None:
    wants(name, platform)
    program = compile_program(name, tmp_path)
    bundle = Bundle(tmp_path / "bundle", busybox).args(f"/abi/{name}").configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": f"/abi/{name}", "source": str(program), "options": ["bind", "ro"]}
    )
    start = random.Random(name).randrange(4)
    for call in CALLS[start:]:
        trip = RoundTrip(bundle, platform, tmp_path)
        try:
            if not trip.hold(call):
                continue
            written = trip.write()
            if "cannot checkpoint: " in written.stderr:
                pytest.skip(written.stderr.partition("cannot checkpoint: ")[2].strip('"\n'))
            assert written.returncode == 0, written.stderr
            done = trip.read()
            assert (done.returncode, done.stderr) == (0, ""), (call, done.stderr)
            return
        finally:
            trip.delete()
    pytest.skip("it makes too few calls")
