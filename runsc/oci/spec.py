"""config.json of the OCI runtime specification 1.2, as typed structs.

`load` reads and decodes it; a value of the wrong type is an error with its JSON path. What the
values mean is runsc/oci/convert.py's. Fields that a runtime must ignore (unknown ones) are ignored;
docs/config-json.md says for every known field whether it is honoured. Annotations are no text:
msgspec would compile each of it.
"""

import os
from typing import Annotated, Any, TypeVar

import msgspec

from runsc.errors import RuntimeFailure, SpecError, why

U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Id = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFE)]
"""Of a user or a group: -1 is nobody's, and changes nothing for chown(2)."""
U64 = Annotated[int, msgspec.Meta(ge=0)]
I64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Strings = list[str] | None


class _Base(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """Names as in the specification; defaults are left out when written."""


class ConsoleSize(_Base):
    """config.md, "Process": consoleSize."""

    height: U32
    width: U32


class User(_Base):
    """config.md, "POSIX-platform User"."""

    uid: Id
    gid: Id
    umask: U32 | None = None
    additional_gids: list[Id] | None = None
    username: str = ""


class CapabilitySets(_Base):
    """config.md, "Linux Process": capabilities."""

    bounding: Strings = None
    effective: Strings = None
    inheritable: Strings = None
    permitted: Strings = None
    ambient: Strings = None


class SpecRlimit(_Base):
    """config.md, "POSIX process": rlimits."""

    type: str
    hard: U64
    soft: U64


class Process(_Base):
    """config.md, "Process"."""

    user: User
    cwd: str
    args: Strings = None
    env: Strings = None
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: CapabilitySets | None = None
    rlimits: list[SpecRlimit] | None = None
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    selinux_label: str = ""
    scheduler: dict[str, Any] | None = None
    io_priority: dict[str, Any] | None = None
    exec_cpu_affinity: dict[str, Any] | None = msgspec.field(default=None, name="execCPUAffinity")


class ExecDocument(Process):
    """The document of `exec --process`: who is left out is root, as for runc."""

    user: User = msgspec.field(default_factory=lambda: User(0, 0))
    cwd: str = ""


class Root(_Base):
    """config.md, "Root"."""

    path: str
    readonly: bool = False


class IdMapping(_Base):
    """config-linux.md, "User namespace mappings"."""

    container_id: U32 = msgspec.field(name="containerID")
    host_id: U32 = msgspec.field(name="hostID")
    size: U32


class Mount(_Base):
    """config.md, "Mounts"."""

    destination: str
    type: str = ""
    source: str = ""
    options: Strings = None
    uid_mappings: list[IdMapping] | None = None
    gid_mappings: list[IdMapping] | None = None


class Namespace(_Base):
    """config-linux.md, "Namespaces"."""

    type: str
    path: str = ""


class Device(_Base):
    """config-linux.md, "Devices"."""

    type: str
    path: str
    major: I64 = 0
    minor: I64 = 0
    file_mode: U32 | None = None
    uid: U32 | None = None
    gid: U32 | None = None


class SeccompArg(_Base):
    """config-linux.md, "Seccomp": one test of an argument."""

    index: U32
    value: U64
    op: str
    value_two: U64 = 0


class SeccompSyscall(_Base):
    """config-linux.md, "Seccomp": what becomes of some calls."""

    names: list[str]
    action: str
    errno_ret: U32 | None = None
    args: list[SeccompArg] | None = None


class Seccomp(_Base):
    """config-linux.md, "Seccomp"."""

    default_action: str
    default_errno_ret: U32 | None = None
    architectures: Strings = None
    flags: Strings = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[SeccompSyscall] | None = None


class Linux(_Base):
    """config-linux.md."""

    namespaces: list[Namespace] | None = None
    uid_mappings: list[IdMapping] | None = None
    gid_mappings: list[IdMapping] | None = None
    time_offsets: dict[str, Any] | None = None
    devices: list[Device] | None = None
    net_devices: dict[str, Any] | None = None
    cgroups_path: str = ""
    resources: dict[str, Any] | None = None
    """runsc/oci/resources.py decodes it."""
    intel_rdt: dict[str, Any] | None = None
    sysctl: dict[str, str] | None = None
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: Strings = None
    readonly_paths: Strings = None
    mount_label: str = ""
    personality: dict[str, Any] | None = None
    memory_policy: dict[str, Any] | None = None


class Hook(_Base):
    """config.md, "POSIX-platform Hooks": one program; the timeout is in seconds."""

    path: str
    args: Strings = None
    env: Strings = None
    timeout: I64 | None = None


class Hooks(_Base):
    """config.md, "POSIX-platform Hooks"."""

    prestart: list[Hook] | None = None
    create_runtime: list[Hook] | None = None
    create_container: list[Hook] | None = None
    start_container: list[Hook] | None = None
    poststart: list[Hook] | None = None
    poststop: list[Hook] | None = None


class Spec(_Base):
    """The whole document."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: list[Mount] | None = None
    hooks: Hooks | None = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None


T = TypeVar("T")


def _located(error: msgspec.ValidationError, where: str = "$") -> SpecError:
    message, _, path = str(error).partition(" - at `")
    return SpecError(where + path.rstrip("`")[1:], message)


def _placed(text: str, data: bytes) -> str:
    """The decoder's message with a line and a column where it has the number of a byte."""
    told, _, number = text.rstrip(")").partition(" (byte ")
    told = told.removeprefix("JSON is malformed: ")
    before = data[: int(number)] if number.isdigit() else data
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return f"line {line}, column {column}: {told.lower()}"


def convert(document: object, kind: type[T], where: str) -> T:
    """A part of a document whose type is looked at later; `where` is its JSON path."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _located(error, where) from None


def decode(data: bytes, kind: type[T]) -> T:
    """Decode a document. Raises: SpecError with the JSON path of what is wrong."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _located(error) from None
    except msgspec.DecodeError as error:
        raise RuntimeFailure(f"config.json is not JSON: {_placed(str(error), data)}") from None
    except UnicodeDecodeError as error:
        raise RuntimeFailure(f"config.json is not UTF-8: {error}") from None
    except RecursionError:
        raise RuntimeFailure("config.json is nested too deeply") from None


def load(bundle: str) -> Spec:
    """Read the bundle's config.json."""
    if not os.path.isdir(bundle):
        raise RuntimeFailure(f"chdir {bundle}: no such file or directory")
    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            return decode(file.read(), Spec)
    except FileNotFoundError:
        raise RuntimeFailure(
            "JSON specification file config.json not found",
            hint="`runsc spec` writes one to start from; --bundle DIR names another folder",
        ) from None
    except OSError as error:
        raise RuntimeFailure(f"config.json: {why(error)}") from None
