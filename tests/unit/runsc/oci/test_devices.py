"""runsc.oci.devices: nodes that a bundle asks for."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from runsc.errors import SpecError
from runsc.oci import devices, spec

PRIVILEGED = {"devices": [{"allow": True, "access": "rwm"}]}
ONLY_SOME = {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c"}]}


def _paths(documents: list[spec.Device], resources: dict[str, Any]) -> list[bytes]:
    return [each.path for each in devices.of(documents, resources)]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (spec.Device("c", "/dev/kvm", 10, 232), r"/dev/kvm \(c 10:232\) is a device of the host"),
        (spec.Device("b", "/dev/sda", 8, 0), r"/dev/sda \(b 8:0\) is a device of the host"),
        (spec.Device("b", "/dev/null", 1, 3), r"/dev/null \(b 1:3\)"),
        (spec.Device("x", "/dev/x"), "invalid device type"),
        (spec.Device("c", "x"), "absolute"),
        (spec.Device("c", "/x\0"), "NUL"),
        (spec.Device("c", "/x", 1 << 12), "out of range"),
    ],
)
def test_others_are_refused_by_their_name(device: spec.Device, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        devices.of([device], ONLY_SOME)


def test_own_devices_and_fifos_are_made() -> None:
    null = spec.Device("c", "/dev/other", 1, 3, file_mode=0o600, uid=5, gid=6)
    (made, fifo) = devices.of([null, spec.Device("p", "/fifo")], {})

    assert (made.path, made.mode, made.uid, made.gid) == (b"/dev/other", 0o020600, 5, 6)
    assert stat.S_ISFIFO(fifo.mode)


def test_privileged_container_gets_those_that_there_are() -> None:
    asked = [spec.Device("b", "/dev/sda", 8, 0), spec.Device("c", "/dev/full", 1, 7)]

    assert _paths(asked, PRIVILEGED) == [b"/dev/full"]
    assert _paths(asked, {"devices": [{**PRIVILEGED["devices"][0], "type": "a", "major": -1}]}) == [
        b"/dev/full"
    ]


@pytest.mark.parametrize(("path", "minor"), [("/dev/net/tun", 200), ("/dev/fuse", 229)])
def test_device_of_the_host_that_the_sentry_has_is_its_own(path: str, minor: int) -> None:
    assert _paths([spec.Device("c", path, 10, minor)], {}) == [path.encode()]
