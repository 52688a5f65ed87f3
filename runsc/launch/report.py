"""What was decided about a container before it starts, a line each: `--debug`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from runsc import filters
from runsc.launch import isolation
from runsc.launch.network_choice import network_of, passt_of
from sentry.abi import capability, mount, resource
from sentry.abi.sched import CLONE_NEWUSER

if TYPE_CHECKING:
    from runsc.cgroups.cgroup import Cgroup
    from runsc.oci.convert import Container
    from runsc.oci.exports import Export
    from runsc.options import Globals
    from sentry.config import Capabilities, MountConfig, ProcessConfig, SandboxConfig

MIB = 1 << 20
FILTER_ENTRY = 8
"""Bytes of one instruction of classic BPF."""
NAMESPACES = "mount, pid, network, ipc, uts, cgroup"


def decisions(
    flags: Globals, container: Container, config: SandboxConfig, cgroup: Cgroup | None
) -> Iterator[str]:
    """One line for each, for who has never read the source."""
    yield _platform(config)
    why = _memory_why(flags, container)
    yield f"memory: {config.memory_limit // MIB} MiB for all programs ({why})"
    yield f"CPUs: {config.cpus}" + _quota(config) + _tasks(config)
    yield from _process(config.process)
    yield from _files(container, config)
    yield from _mounts(config.mounts, container.exports)
    yield from _special_paths(config)
    yield _network(flags, container)
    yield _cgroup(container, cgroup)
    yield from _confinement(flags, config)
    if container.hooks is not None:
        yield "hooks: " + ", ".join(
            name for name in container.hooks.__struct_fields__ if getattr(container.hooks, name)
        )


def _platform(config: SandboxConfig) -> str:
    if config.platform == "kvm":
        return f"platform: kvm, /dev/kvm is open (--system-calls={config.system_calls})"
    return "platform: unicorn, as --platform says: an emulated CPU, slow, and no security boundary"


def _memory_why(flags: Globals, container: Container) -> str:
    limit = container.resources.memory_limit if container.resources is not None else None
    if limit is not None and (flags.memory is None or limit <= flags.memory):
        return "as config.json says"
    return "half of the host's" if flags.memory is None else "as --memory says"


def _quota(config: SandboxConfig) -> str:
    quota, period = config.cpu_quota
    return f", of which {quota} in {period} microseconds may be used" if quota > 0 else ""


def _tasks(config: SandboxConfig) -> str:
    return f"; at most {config.pids_limit} tasks" if config.pids_limit > 0 else ""


def _process(process: ProcessConfig) -> Iterator[str]:
    words = " ".join(word.decode(errors="replace") for word in process.args)
    where = process.cwd.decode(errors="replace")
    yield f"program: {words!r} in {where}, as user {process.uid}, group {process.gid}"
    yield f"capabilities: {_capabilities(process.capabilities)}" + (
        "; none can be gained (noNewPrivileges)" if process.no_new_privileges else ""
    )
    names = {number: name for name, number in vars(resource).items() if name.startswith("RLIMIT_")}
    for limit in process.rlimits:
        yield f"limit: {names[limit.resource]} {limit.soft}, at most {limit.hard}"
    if process.terminal:
        yield "terminal: one of the container's own, behind the caller's"
    else:
        yield "terminal: none; standard input, output and error are the caller's"


def _capabilities(sets: Capabilities) -> str:
    names = {v: k for k, v in vars(capability).items() if k.startswith("CAP_")}
    names[capability.CAP_LAST_CAP] = "CAP_CHECKPOINT_RESTORE"
    held = [n for n in range(capability.CAP_LAST_CAP + 1) if sets.effective >> n & 1]
    if len(held) > capability.CAP_LAST_CAP:
        return "all"
    return " ".join(names[number] for number in held) or "none"


def _files(container: Container, config: SandboxConfig) -> Iterator[str]:
    root = container.root
    if root.overlay == "memory":
        writes = "what is written stays in memory (--overlay2 root:memory)"
    elif root.overlay == "disk":
        writes = "what is written goes to a file without a name (--overlay2 root:self, root:dir)"
    else:
        writes = "what is written is kept on the host (--overlay2 none)"
        if root.written_behind:
            writes += ", names up to a second later"
    yield f"root: {container.exports[0].path}, " + ("read-only" if root.readonly else writes)
    if config.root.image_fd >= 0:
        yield "gofer: none, for the sandbox has the image open, and nothing else of the host"
        return
    for index, export in enumerate(container.exports):
        mode = "writable" if export.writable else "read-only"
        cache = (
            "exclusive: the host is taken not to change it"
            if (export.is_exclusive if index else not export.is_shared)
            else "shared: changes by the host are seen"
        )
        yield f"gofer: serves {export.path}, {mode}, {cache}"


def _mounts(mounts: tuple[MountConfig, ...], exports: tuple[Export, ...]) -> Iterator[str]:
    names = {
        mount.MS_RDONLY: "ro", mount.MS_NOSUID: "nosuid", mount.MS_NODEV: "nodev",
        mount.MS_NOEXEC: "noexec", mount.MS_NOATIME: "noatime", mount.MS_RELATIME: "relatime",
        mount.MS_STRICTATIME: "strictatime",
    }  # fmt: skip
    for each in mounts:
        options = [name for bit, name in names.items() if each.flags & bit]
        options += [each.data] if each.data else []
        what = f"{each.type} of the Sentry"
        if each.attachment is not None:
            what = f"{exports[each.attachment].path} of the host, through the gofer"
        where = each.destination.decode(errors="replace")
        yield f"mount: {where}: {what}" + (f" ({','.join(options)})" if options else "")


def _special_paths(config: SandboxConfig) -> Iterator[str]:
    for what, paths in (("hidden", config.masked_paths), ("read-only", config.readonly_paths)):
        if paths:
            yield f"{what}: " + " ".join(path.decode(errors="replace") for path in paths)


def _network(flags: Globals, container: Container) -> str:
    default = ", by default" if flags.network_is_default else ""
    network = network_of(flags, container)
    if network == "none":
        return f"network: a loopback interface of its own and no other (--network=none{default})"
    if path := passt_of(flags):
        return f"network: an interface of the sandbox's own, whose other end is {path}"
    where = dict(container.namespaces).get("network")
    named = {None: "the caller's network namespace", "": "a new network namespace"}
    place = named.get(where, where)
    what = "sockets of the host, in" if network == "host" else "packets for the interfaces of"
    return f"network: {what} {place} (--network={network}{default})"


def _cgroup(container: Container, cgroup: Cgroup | None) -> str:
    if cgroup is not None:
        return "cgroup: " + ", ".join(sorted(set(cgroup.record.directories.values())))
    if container.cgroups_path or container.resources is not None:
        return "cgroup: none, for this user may make none"
    return "cgroup: none, for config.json names no cgroup and no limit"


def _confinement(flags: Globals, config: SandboxConfig) -> Iterator[str]:
    user = "" if isolation.is_privileged() else ", user (not root: one of its own)"
    assert isolation.NAMESPACES & CLONE_NEWUSER == 0
    yield f"namespaces: sandbox and gofer are each in new ones of the host: {NAMESPACES}{user}"
    if flags.switches.no_filter:
        yield "seccomp: sandbox and gofer run WITHOUT a filter (--TESTONLY-unsafe-nofilter)"
    else:
        sentry = len(filters.sentry_program(config.platform, config.network)) // FILTER_ENTRY
        gofer = len(filters.gofer_program()) // FILTER_ENTRY
        yield (
            f"seccomp: system calls of the host that sandbox and gofer may make are listed in"
            f" filters of {sentry} and {gofer} instructions; any other kills them"
        )
    if config.seccomp:
        size = len(config.seccomp) // FILTER_ENTRY
        yield f"seccomp: the program runs under config.json's profile ({size} instructions)"
    else:
        yield "seccomp: config.json has no profile for the program"
    yield f"state: {os.path.join(flags.root, config.container_id)}"
