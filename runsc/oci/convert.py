"""From the bundle's documents to what the Sentry and the Gofer are told.

Names become numbers, lists become masks, relative paths become absolute. What cannot be done is
refused with its JSON path; what is accepted without effect stands in docs/config-json.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from runsc.errors import RuntimeFailure, SpecError
from runsc.oci import mounts, spec
from runsc.oci.exports import Export, Users
from sentry import config
from sentry.abi import capability, resource
from sentry.abi.mount import MS_RDONLY, MS_REC, MS_SHARED, MS_SLAVE
from sentry.abi.stat import EROFS_SUPER_MAGIC_V1

if TYPE_CHECKING:
    from runsc.oci.resources import Resources

Warn = Callable[[str], None]

CAPABILITIES = {
    name: number
    for name, number in vars(capability).items()
    if name.startswith("CAP_") and name != "CAP_LAST_CAP"
}
RLIMITS = {
    name: number
    for name, number in vars(resource).items()
    if name.startswith("RLIMIT_") and isinstance(number, int)
}
EROFS = EROFS_SUPER_MAGIC_V1.to_bytes(4, "little")
MAX_SIZE = 0xFFFF
"""Rows, and columns: struct winsize has 16 bits."""
NUL = "it has a NUL character"
ROOTFS = "dev.gvisor.spec.rootfs."
"""Where annotations of gVisor's about the root begin."""
_NAMESPACES = frozenset({"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"})
_POWERS = {"": 0, "b": 0} | {
    letter + unit: 10 * power for power, letter in enumerate("kmgtp", 1) for unit in ("", "b", "ib")
}
"""Unit → of 2."""
_JOINABLE = frozenset({"network", "mount", "pid", "ipc", "uts", "cgroup", "user"})
_PROPAGATIONS = frozenset(
    {"", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"}
)


class Container(msgspec.Struct, frozen=True):
    """A bundle, understood."""

    process: config.ProcessConfig
    root: config.RootConfig
    mounts: tuple[config.MountConfig, ...]
    devices: tuple[config.DeviceConfig, ...]
    hostname: str
    domainname: str
    masked_paths: tuple[bytes, ...]
    readonly_paths: tuple[bytes, ...]
    sysctls: tuple[tuple[str, str], ...]
    exports: tuple[Export, ...]
    seccomp: bytes = b""
    hooks: spec.Hooks | None = None
    hook_process: spec.Process | None = None
    """What startContainer hooks are run like, if there are some."""
    cgroups_path: str = ""
    namespaces: tuple[tuple[str, str], ...] = ()
    """(type, path; "": a new one); of those that are not named it has the caller's."""
    users: Users | None = None
    """Not the caller's."""
    resources: Resources | None = None
    """What config.json says under linux.resources; None if it says nothing."""
    apparmor_profile: str = ""
    selinux_label: str = ""
    mount_label: str = ""
    """SELinux's, of mounts that are made for it."""

    @property
    def has_low_ports(self) -> bool:
        """Its programs may bind sockets of the host to privileged ports."""
        return bool(self.process.capabilities.bounding >> capability.CAP_NET_BIND_SERVICE & 1)


def _bytes(text: str, path: str) -> bytes:
    if "\0" in text:
        raise SpecError(path, NUL)
    return text.encode(errors="surrogateescape")  # words of a command line need not be UTF-8


def _mask(names: spec.Strings, unknown: list[str]) -> int:
    mask = 0
    for name in names or ():
        number = CAPABILITIES.get(name.upper())
        if number is None:
            unknown.append(name)
        else:
            mask |= 1 << number
    return mask


def capabilities(
    sets: spec.CapabilitySets | None, warn: Warn, path: str = "$.process.capabilities"
) -> config.Capabilities:
    """The five sets; as runc does, a capability that nobody knows is warned about and left out.

    Raises: SpecError, with runc's words, for sets that capset(2) refuses to who has all.
    """
    if sets is None:
        return config.Capabilities()
    unknown: list[str] = []
    made = config.Capabilities(
        bounding=_mask(sets.bounding, unknown),
        effective=_mask(sets.effective, unknown),
        inheritable=_mask(sets.inheritable, unknown),
        permitted=_mask(sets.permitted, unknown),
        ambient=_mask(sets.ambient, unknown),
    )
    if unknown:
        names = " ".join(sorted(set(unknown)))
        warn(f"ignoring unknown or unavailable capabilities: [{names}]")
    for name, within in (("effective", "permitted"), ("inheritable", "bounding")):
        beyond = getattr(made, name) & ~getattr(made, within)
        if beyond:
            names = " ".join(each for each, bit in CAPABILITIES.items() if beyond >> bit & 1)
            text = f"unable to apply caps: operation not permitted: not {within}: {names}"
            raise SpecError(f"{path}.{name}", text)
    return made


def _rlimits(limits: list[spec.SpecRlimit], path: str) -> tuple[config.Rlimit, ...]:
    made: dict[int, config.Rlimit] = {}
    for index, limit in enumerate(limits):
        where = f"{path}[{index}]"
        number = RLIMITS.get(limit.type)
        if number is None:
            raise SpecError(f"{where}.type", f"wrong rlimit value: {limit.type}")
        if number in made:
            raise SpecError(f"{where}.type", f"duplicate rlimit: {limit.type}")
        if limit.hard >> 64:
            raise SpecError(f"{where}.hard", f"{limit.hard} has more than 64 bits")
        if limit.soft > limit.hard:
            raise SpecError(f"{where}.soft", f"{limit.type}: the soft limit is above the hard one")
        made[number] = config.Rlimit(number, limit.soft, limit.hard)
    return tuple(made.values())


def _environment(env: list[str], path: str) -> tuple[bytes, ...]:
    """Of variables that are named twice the last one counts, as with runc."""
    made: dict[bytes, bytes] = {}
    for index, variable in enumerate(env):
        where = f"{path}[{index}]"
        if variable.find("=") < 1:
            raise SpecError(where, "invalid environment variable: missing '='")
        data = _bytes(variable, where)
        made[data.partition(b"=")[0]] = data
    return tuple(made.values())


def process(
    document: spec.Process | None, warn: Warn, path: str = "$.process"
) -> config.ProcessConfig:
    """The process of a bundle, or of `exec --process` (then `path` is "$")."""
    if document is None:
        raise SpecError(path, "process property must not be empty")
    if not document.args:
        raise SpecError(f"{path}.args", "args must not be empty")
    if not document.cwd.startswith("/"):
        raise SpecError(f"{path}.cwd", "Cwd must be an absolute path")
    if document.exec_cpu_affinity:
        raise SpecError(f"{path}.execCPUAffinity", "execCPUAffinity is not supported")
    size = document.console_size if document.terminal else None
    if size is not None and max(size.height, size.width) > MAX_SIZE:
        raise SpecError(f"{path}.consoleSize", f"a terminal has at most {MAX_SIZE} rows or columns")
    if not -1000 <= (document.oom_score_adj or 0) <= 1000:
        value = document.oom_score_adj
        raise SpecError(f"{path}.oomScoreAdj", f"{value} is out of range")
    user = document.user
    return config.ProcessConfig(
        args=tuple(_bytes(a, f"{path}.args[{i}]") for i, a in enumerate(document.args)),
        env=_environment(document.env or [], f"{path}.env"),
        cwd=_bytes(document.cwd, f"{path}.cwd"),
        uid=user.uid,
        gid=user.gid,
        additional_gids=tuple(user.additional_gids or ()),
        umask=0o022 if user.umask is None else user.umask & 0o777,
        capabilities=capabilities(document.capabilities, warn, f"{path}.capabilities"),
        rlimits=_rlimits(document.rlimits or [], f"{path}.rlimits"),
        no_new_privileges=document.no_new_privileges,
        oom_score_adj=document.oom_score_adj or 0,
        **_scheduling(document, path),
        terminal=document.terminal,
        console_size=None if size is None else (size.height, size.width),
    )


def _scheduling(document: spec.Process, path: str) -> dict[str, Any]:
    if document.scheduler is None and document.io_priority is None:
        return {}
    from runsc.oci import scheduling  # noqa: PLC0415  few bundles have it

    made: dict[str, Any] = {}
    if document.scheduler is not None:
        made["scheduler"] = scheduling.scheduler(document.scheduler, f"{path}.scheduler")
    if document.io_priority is not None:
        made["io_priority"] = scheduling.io_priority(document.io_priority, f"{path}.ioPriority")
    return made


def _mounts(
    bundle: str, document: spec.Spec, exports: list[Export], users: Users | None, warn: Warn
) -> list[config.MountConfig]:
    made, documents = [], document.mounts or []
    for index, mount in enumerate(documents):
        path = f"$.mounts[{index}]"
        _bytes(mount.source, f"{path}.source")
        options = mounts.parse(mount.options or [])
        _bytes(options.data, f"{path}.options")
        destination = mount.destination
        if not destination.startswith("/"):
            warn(f"mount destination {destination} is not absolute")
            destination = "/" + destination
        export = None
        if mount.type == "bind" or options.bind:
            export = _source(bundle, mount, options, path)
            if mount.uid_mappings or mount.gid_mappings or options.idmapped:
                export = _idmapped(export, mount, users, path)
        elif mount.type == "overlay":
            export = Export("", not options.flags & MS_RDONLY, overlay=options.data)
        elif not mount.type:
            raise SpecError(f"{path}.type", "a mount that is no bind mount needs a type")
        entry = config.MountConfig(
            destination=_bytes(destination, f"{path}.destination"),
            type="bind" if export is not None else mount.type,
            source=mount.source,
            flags=options.flags,
            propagation=options.propagation,
            data="" if export is not None and export.overlay else options.data,
            attachment=len(exports) if export is not None else None,
            is_file=export is not None and export.is_file,
            copy_up=options.copy_up,
            follows=export is not None and export.follows,
        )
        made.append(entry)
        if export is None:
            continue
        exports.append(export)
        if export.recursive and not export.writable and not options.read_only_below:
            for below, more in _writable_below(export, entry):
                made.append(msgspec.structs.replace(below, attachment=len(exports)))
                exports.append(more)
    return made


def _idmapped(export: Export, mount: spec.Mount, users: Users | None, path: str) -> Export:
    from runsc.oci.users import of_mount  # noqa: PLC0415  few mounts are

    below = "ridmap" in (mount.options or ())
    owners = of_mount(mount, users, path)
    return msgspec.structs.replace(export, owners=owners, owners_below=below)


def _source(bundle: str, mount: spec.Mount, options: mounts.Options, path: str) -> Export:
    """What a bind mount shows. Raises: SpecError."""
    source = os.path.realpath(os.path.join(bundle, mount.source))
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise SpecError(
            f"{path}.source", f"bind mount source {mount.source}: {(error.strerror or '').lower()}"
        ) from None
    kind = stat.S_IFMT(mode)
    recursive = bool(options.bind & MS_REC)
    special = 0 if kind in (stat.S_IFREG, stat.S_IFDIR) else kind
    is_file = kind != stat.S_IFDIR
    follows = not is_file and bool(options.propagation & (MS_SLAVE | MS_SHARED))
    writable = not options.flags & MS_RDONLY
    return Export(source, writable, is_file, recursive, special, follows=follows)


def _writable_below(
    export: Export, entry: config.MountConfig
) -> list[tuple[config.MountConfig, Export]]:
    """mount(8): a recursive bind mount that is read-only is so at its top alone."""
    if export.is_file or export.overlay:
        return []
    from runsc.oci import submounts  # noqa: PLC0415  few mounts are read-only

    return [
        (
            msgspec.structs.replace(
                entry,
                destination=entry.destination.rstrip(b"/") + b"/" + os.fsencode(each.name),
                flags=entry.flags & ~MS_RDONLY,
                is_file=each.is_file,
                follows=False,
            ),
            Export(os.path.join(export.path, each.name), True, each.is_file, recursive=False),
        )
        for each in submounts.writable_below(export.path)
    ]


def _check_namespaces(documents: list[spec.Namespace]) -> None:
    seen = set()
    for index, namespace in enumerate(documents):
        path = f"$.linux.namespaces[{index}]"
        if namespace.type not in _NAMESPACES:
            kind, target = namespace.type, namespace.path
            raise SpecError(f"{path}.type", f'namespace {{"{kind}" "{target}"}} does not exist')
        if namespace.type in seen:
            raise SpecError(
                f"{path}.type", f'malformed spec file: duplicated ns "{namespace.type}"'
            )
        seen.add(namespace.type)
        if namespace.path and namespace.type not in _JOINABLE:
            raise SpecError(
                f"{path}.path", f"joining a {namespace.type} namespace is not supported"
            )


def _check_linux(linux: spec.Linux) -> None:
    """Refuse what would change what the program sees and is not there."""
    _check_namespaces(linux.namespaces or [])
    unsupported: tuple[tuple[str, object], ...] = (
        ("timeOffsets", linux.time_offsets),
        ("netDevices", linux.net_devices),
        ("intelRdt", linux.intel_rdt),
        ("memoryPolicy", linux.memory_policy),
    )
    for name, value in unsupported:
        if value:
            raise SpecError(f"$.linux.{name}", f"{name} is not supported")
    if linux.rootfs_propagation not in _PROPAGATIONS:
        value = linux.rootfs_propagation
        raise SpecError("$.linux.rootfsPropagation", f"rootfsPropagation={value} is not supported")


def _devices(linux: spec.Linux) -> tuple[config.DeviceConfig, ...]:
    if not linux.devices:
        return ()
    from runsc.oci import devices  # noqa: PLC0415  few bundles have some

    return devices.of(linux.devices, linux.resources or {})


def _users(linux: spec.Linux) -> Users | None:
    """Raises: SpecError, as runc, for maps without a namespace."""
    if not linux.uid_mappings and not linux.gid_mappings:
        joined = [each for each in linux.namespaces or [] if each.type == "user" and each.path]
        if not joined:
            return None
    from runsc.oci import users  # noqa: PLC0415  few bundles have them

    return users.of(linux)


def _seccomp(profile: spec.Seccomp | None, warn: Warn) -> bytes:
    if profile is None:
        return b""
    from runsc.oci.seccomp import compile_profile  # noqa: PLC0415  few bundles have one

    return compile_profile(profile, warn)


def _resources(document: dict[str, Any] | None) -> Resources | None:
    if document is None:
        return None
    from runsc.oci.resources import decode  # noqa: PLC0415  `do` has none

    return decode(document)


def _image(annotations: dict[str, str]) -> str | None:
    """gVisor's annotations for a root that is an image in a file. Raises: SpecError."""
    source, kind = annotations.get(f"{ROOTFS}source"), annotations.get(f"{ROOTFS}type")
    if kind != "erofs":
        return None
    if not source:
        raise SpecError("$.annotations", f"{ROOTFS}type without {ROOTFS}source")
    return source


def _root(bundle: str, root: spec.Root | None, image: str | None) -> tuple[str, bool]:
    """Where it is, and whether it is an image in a file."""
    if root is None:
        raise SpecError("$.root", "root must be specified")
    _bytes(root.path, "$.root.path")
    path = os.path.realpath(os.path.join(bundle, root.path if image is None else image))
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise SpecError("$.root.path", f"invalid rootfs: stat {path}: {reason}") from None
    if stat.S_ISREG(mode) and _begins_as_image(path):
        return path, True
    if not stat.S_ISDIR(mode) or image is not None:
        kinds = "no image of EROFS" if image is not None else "neither a directory nor an image"
        raise SpecError("$.root.path", f"invalid rootfs: {path} is {kinds}")
    return path, False


def _begins_as_image(path: str) -> bool:
    """As one of EROFS, whose superblock is at byte 1024. What cannot be read may be one."""
    try:
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), 4, 1024) == EROFS
    except OSError:
        return True


def _is_read_only(path: str) -> bool:
    """The host lets nobody write there."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _check_version(version: str) -> None:
    major, _, rest = version.partition(".")
    if major != "1" or not rest[:1].isdigit():
        raise SpecError("$.ociVersion", f'unsupported runtime-spec version "{version}"')


def container(bundle: str, document: spec.Spec, overlay: str, warn: Warn) -> Container:
    """Check a bundle and turn it into values."""
    _check_version(document.oci_version)
    linux = document.linux or spec.Linux()
    _check_linux(linux)
    if document.hooks is not None:
        from runsc.oci import hooks  # noqa: PLC0415  few bundles have some

        hooks.check(document.hooks, warn)
    for field, name in (("hostname", document.hostname), ("domainname", document.domainname)):
        if len(name.encode()) > 64 or "\0" in name:
            raise SpecError(f"$.{field}", f"a {field} has at most 64 bytes, and no NUL character")
    first = process(document.process, warn)
    if linux.personality:
        from runsc.oci.scheduling import personality  # noqa: PLC0415  few bundles have it

        first = msgspec.structs.replace(first, personality=personality(linux.personality))
    root_path, is_image = _root(bundle, document.root, _image(document.annotations or {}))
    assert document.root is not None
    readonly = document.root.readonly or (
        overlay == "none" and (is_image or _is_read_only(root_path))
    )
    if readonly and overlay == "none":
        overlay = "memory"  # for the places that mounts need
    exports = [Export(root_path, overlay == "none", is_file=is_image)]
    users = _users(linux)
    made = _mounts(bundle, document, exports, users, warn)
    return Container(
        process=first,
        root=config.RootConfig(readonly, overlay, is_image=is_image),
        mounts=tuple(made),
        devices=_devices(linux),
        hostname=document.hostname,
        domainname=document.domainname,
        masked_paths=_paths(linux.masked_paths, "$.linux.maskedPaths"),
        readonly_paths=_paths(linux.readonly_paths, "$.linux.readonlyPaths"),
        sysctls=tuple(_sysctls(linux.sysctl or {})),
        exports=tuple(exports),
        hooks=document.hooks,
        hook_process=(
            document.process if document.hooks and document.hooks.start_container else None
        ),
        cgroups_path=linux.cgroups_path,
        namespaces=tuple((each.type, each.path or "") for each in linux.namespaces or []),
        users=users,
        resources=_resources(linux.resources),
        seccomp=_seccomp(linux.seccomp, warn),
        apparmor_profile=document.process.apparmor_profile if document.process else "",
        selinux_label=document.process.selinux_label if document.process else "",
        mount_label=linux.mount_label,
    )


def _paths(paths: spec.Strings, where: str) -> tuple[bytes, ...]:
    for index, path in enumerate(paths or ()):
        if not path.startswith("/"):
            raise SpecError(f"{where}[{index}]", f"{path} is not an absolute path")
    return tuple(_bytes(path, f"{where}[{i}]") for i, path in enumerate(paths or ()))


def _sysctls(values: dict[str, str]) -> list[tuple[str, str]]:
    made = []
    for name, value in values.items():
        parts = name.replace("/", ".").split(".")
        if len(parts) < 2 or any(part in ("", "..") for part in parts):
            raise SpecError(f"$.linux.sysctl.{name}", f'sysctl "{name}" is not a name')
        _bytes(name + value, f"$.linux.sysctl.{name}")
        made.append((".".join(parts), value))
    return made


def bytes_of(text: str) -> int | None:
    """A size as docker/go-units reads it: "4096", "64m", "1.5g", "100KiB"; None if it is none."""
    low = text.lower()
    digits = low.rstrip("bkmgtpi")
    power = _POWERS.get(low[len(digits) :])
    digits = digits.removesuffix(" ")
    if power is None or not (digits.isascii() and digits.replace(".", "", 1).isdigit()):
        return None
    return int(float(digits) * (1 << power)) if "." in digits else int(digits) << power


def size(text: str, flag: str) -> int:
    """A size on the command line. Raises: RuntimeFailure."""
    found = bytes_of(text)
    if found is None:
        raise RuntimeFailure(f"{flag}: {text} is not a size, such as 512M or 2G")
    return found


def memory_size(text: str) -> int:
    """64 MiB at least."""
    found = size(text, "--memory")
    if found < 64 << 20:
        raise RuntimeFailure(f"--memory: {text} is less than 64M")
    return found
