"""linux.devices: device nodes that a bundle asks for beside those that every container has.

A container has the devices of its own kernel and none of the host's. Who asks for another one is
told so by its name; a privileged container, for which engines list all that the host has, gets
those that there are.
"""

from __future__ import annotations

import stat
from typing import Any, Final

from runsc.errors import SpecError
from runsc.oci import spec
from sentry import config

_KINDS: Final = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
EMULATED: Final = frozenset(
    {(1, minor) for minor in (3, 5, 7, 8, 9)} | {(5, minor) for minor in (0, 1, 2)}
    | {(10, minor) for minor in (200, 229)}
)
"""Character devices that the Sentry has: sentry/fs/dev, sentry/fs/devpts, sentry/net/tun,
sentry/fs/fuse."""


def of(
    documents: list[spec.Device], resources: dict[str, Any]
) -> tuple[config.DeviceConfig, ...]:
    """The nodes to make. Raises: SpecError."""
    made = []
    for index, device in enumerate(documents):
        path = f"$.linux.devices[{index}]"
        kind = _checked(device, path)
        if "\0" in device.path:
            raise SpecError(f"{path}.path", "it has a NUL character")
        if kind != stat.S_IFIFO and not _is_there(device, kind):
            if _allows_all(resources):
                continue
            number = f"{device.type} {device.major}:{device.minor}"
            raise SpecError(
                path, f"{device.path} ({number}) is a device of the host, which a container"
                " has none of"
            )  # fmt: skip
        mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
        made.append(
            config.DeviceConfig(
                path=device.path.encode(),
                mode=kind | mode,
                major=device.major,
                minor=device.minor,
                uid=device.uid or 0,
                gid=device.gid or 0,
            )
        )
    return tuple(made)


def _checked(device: spec.Device, path: str) -> int:
    """Its kind. Raises: SpecError."""
    kind = _KINDS.get(device.type)
    if kind is None:
        raise SpecError(f"{path}.type", f'invalid device type "{device.type}"')
    if not device.path.startswith("/"):
        raise SpecError(f"{path}.path", "the path of a device must be absolute")
    if kind != stat.S_IFIFO and not (0 <= device.major < 1 << 12 and 0 <= device.minor < 1 << 20):
        raise SpecError(f"{path}.major", "device numbers out of range")
    return kind


def _is_there(device: spec.Device, kind: int) -> bool:
    return kind == stat.S_IFCHR and (device.major, device.minor) in EMULATED


def _allows_all(resources: dict[str, Any]) -> bool:
    """Whether the container is privileged: it may use any device there is."""
    rules = resources.get("devices")
    if not isinstance(rules, list):
        return False
    everything = {"allow": True, "access": "rwm"}
    return any(
        isinstance(rule, dict)
        and {key: value for key, value in rule.items() if value not in (None, -1, "a")}
        == everything
        for rule in rules
    )
