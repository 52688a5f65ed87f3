"""runsc spec: write a config.json to start from, the same that runc writes."""

from __future__ import annotations

import os

import click
import msgspec

from runsc.errors import RuntimeFailure
from runsc.oci import spec

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
]
_READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def standard_mounts() -> list[spec.Mount]:
    """The kernel's file systems that every container gets."""
    safe = ["nosuid", "noexec", "nodev"]
    return [
        spec.Mount("/proc", "proc", "proc"),
        spec.Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        spec.Mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        spec.Mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=65536k"]),
        spec.Mount("/dev/mqueue", "mqueue", "mqueue", safe),
        spec.Mount("/sys", "sysfs", "sysfs", [*safe, "ro"]),
        spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", "ro"]),
    ]


def example() -> spec.Spec:
    """What `runc spec` writes."""
    return spec.Spec(
        oci_version="1.2.0",
        process=spec.Process(
            terminal=True,
            user=spec.User(0, 0),
            args=["sh"],
            env=[_PATH, "TERM=xterm"],
            cwd="/",
            capabilities=spec.CapabilitySets(
                bounding=_CAPABILITIES,
                effective=_CAPABILITIES,
                permitted=_CAPABILITIES,
            ),
            rlimits=[spec.SpecRlimit("RLIMIT_NOFILE", 1024, 1024)],
            no_new_privileges=True,
        ),
        root=spec.Root("rootfs", True),
        hostname="runsc",
        mounts=standard_mounts(),
        linux=spec.Linux(
            resources={"devices": [{"allow": False, "access": "rwm"}]},
            namespaces=[spec.Namespace(kind) for kind in ("pid", "network", "ipc", "uts", "mount")],
            masked_paths=_MASKED,
            readonly_paths=_READONLY,
        ),
    )


@click.command(
    help="Write config.json: a shell at this terminal, in the root file system `rootfs`."
    " Change it as you"
    " like; docs/config-json.md says what is honoured. `runsc run NAME` runs it."
)
@click.option(
    "--bundle", "-b", default=".", metavar="DIR", help="The folder for it. Default: here."
)
def command(bundle: str) -> None:
    """Refuses to overwrite one."""
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, "xb") as file:
            text = msgspec.json.format(msgspec.json.encode(example()), indent=4)
            file.write(text.replace(b"    ", b"\t") + b"\n")
    except FileExistsError:
        raise RuntimeFailure("File config.json exists. Remove it first") from None
