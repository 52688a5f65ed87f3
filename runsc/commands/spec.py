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


def rootless() -> spec.Spec:
    """What `runc spec --rootless` writes: root is who calls, and the network is the caller's."""
    made = example()
    linux = made.linux
    assert linux is not None and made.mounts is not None
    linux.uid_mappings = [spec.IdMapping(0, os.geteuid(), 1)]
    linux.gid_mappings = [spec.IdMapping(0, os.getegid(), 1)]
    kinds = ("pid", "ipc", "uts", "mount", "user")
    linux.namespaces = [spec.Namespace(kind) for kind in kinds]
    linux.resources = None
    for mount in made.mounts:
        if mount.destination == "/dev/pts" and mount.options is not None:
            mount.options.remove("gid=5")
    return made


@click.command(
    help="Write config.json: a shell at this terminal, in the root file system `rootfs`."
    " Change it as you"
    " like; docs/config-json.md says what is honoured. `runsc run NAME` runs it."
    "\n\n\b\nExample:\n"
    "  runsc spec                           then `runsc run my-container`"
)
@click.option(
    "--bundle", "-b", default=".", metavar="DIR", help="The folder for it. Default: here."
)
@click.option("--rootless", "is_rootless", is_flag=True, help="For an ordinary user.")
def command(bundle: str, is_rootless: bool) -> None:
    """Refuses to overwrite one."""
    path = os.path.join(bundle, "config.json")
    made = rootless() if is_rootless else example()
    try:
        with open(path, "xb") as file:
            text = msgspec.json.format(msgspec.json.encode(made), indent=4)
            file.write(text.replace(b"    ", b"\t") + b"\n")
    except FileExistsError:
        raise RuntimeFailure("File config.json exists. Remove it first") from None
