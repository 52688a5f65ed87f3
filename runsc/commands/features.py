"""runsc features: features.md of the runtime specification, for what this runtime does.

A name stands here only if it has an effect, or if the program cannot tell that it has none
(propagation of mounts that nobody else sees). docs/config-json.md has the details.
"""

from __future__ import annotations

import sys

import click
import msgspec

from runsc import __version__
from runsc.oci import convert, mounts
from runsc.oci.hooks import Phase
from runsc.oci.seccomp import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS

OCI_VERSION_MIN, OCI_VERSION_MAX = "1.0.0", "1.2.0"


class _Base(msgspec.Struct, rename="camel"):
    """Names as in the specification."""


class Enabled(_Base):
    """features-linux.md: a feature that is there or not."""

    enabled: bool


class Cgroup(_Base):
    """features-linux.md, "Cgroup"."""

    v1: bool = True
    v2: bool = True
    systemd: bool = False
    systemd_user: bool = False
    rdma: bool = True


class Seccomp(_Base):
    """features-linux.md, "Seccomp"."""

    enabled: bool
    actions: list[str]
    operators: list[str]
    archs: list[str]
    known_flags: list[str]
    supported_flags: list[str]


class Extensions(_Base):
    """features-linux.md, "mountExtensions"."""

    idmap: Enabled


class Linux(_Base):
    """features-linux.md."""

    namespaces: list[str]
    capabilities: list[str]
    cgroup: Cgroup
    seccomp: Seccomp
    apparmor: Enabled
    selinux: Enabled
    intel_rdt: Enabled
    mount_extensions: Extensions


class Features(_Base):
    """features.md."""

    oci_version_min: str
    oci_version_max: str
    hooks: list[str]
    mount_options: list[str]
    linux: Linux
    annotations: dict[str, str]
    potentially_unsafe_config_annotations: list[str]


def features() -> Features:
    """What there is, from the tables that do it."""
    from runsc.cgroups.systemd import can_ask as can_ask_systemd  # noqa: PLC0415  here alone

    capabilities = sorted(convert.CAPABILITIES, key=lambda name: convert.CAPABILITIES[name])
    return Features(
        OCI_VERSION_MIN,
        OCI_VERSION_MAX,
        hooks=[phase.value for phase in Phase],
        mount_options=sorted(mounts.names()),
        linux=Linux(
            namespaces=["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            capabilities=capabilities,
            cgroup=Cgroup(systemd=can_ask_systemd(), systemd_user=can_ask_systemd()),
            seccomp=Seccomp(
                enabled=True,
                actions=sorted(ACTIONS),
                operators=sorted(OPERATORS),
                archs=sorted(ARCHITECTURES),
                known_flags=sorted(FLAGS),
                supported_flags=[],
            ),
            apparmor=Enabled(True),
            selinux=Enabled(True),
            intel_rdt=Enabled(False),
            mount_extensions=Extensions(Enabled(True)),
        ),
        annotations={"runsc.version": __version__},
        potentially_unsafe_config_annotations=[],
    )


@click.command(
    help="Print what of the OCI runtime specification there is, as JSON: for engines."
    "\n\n\b\nExample:\n"
    "  runsc features"
)
def command() -> None:
    """features.md, "Command-line interface"."""
    text = msgspec.json.format(msgspec.json.encode(features()), indent=4)
    sys.stdout.write(text.decode() + "\n")
