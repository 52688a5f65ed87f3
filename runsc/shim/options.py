"""What containerd's configuration says to the shim: the options of a runtime.

They are those of gVisor's shim, as far as they mean something here; others are refused by name.
CRI hands over the table `options` of the runtime, or the name of a file (`ConfigPath`); Docker and
`ctr` that of a file. Source: gVisor's pkg/shim/v1/runsccmd and runsc/options.go.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec

from runsc.shim import messages
from runsc.shim.ttrpc import Code, Refused
from sentry.protobuf import decode

if TYPE_CHECKING:
    from runsc.options import Globals

ROOT = "/run/containerd/runsc"
FILE = "runsc-shim.json"
"""In the bundle: what `delete` has to know when the shim is dead."""
LEVELS = ("debug", "info", "warning", "warn", "error", "fatal", "panic", "trace")
_NOT_HERE = {
    "binary_name": "the shim is the runtime: it calls no other program",
    "io_uid": "no pipe is made that could belong to somebody",
    "io_gid": "no pipe is made that could belong to somebody",
}
_OWN_PLACE = {"log": "log_path", "root": "root"}
"""Global flags that have options of their own."""


class Settings(msgspec.Struct, frozen=True):
    """The options, and whose they are."""

    root: str
    """Where it is noted which containers there are: of this namespace of containerd's."""
    flags: tuple[str, ...] = ()
    """Global flags of the command line."""
    shim_cgroup: str = ""
    log_path: str = ""
    debug: bool = False

    def globals(self) -> Globals:
        """As the command line has them. Raises: RuntimeFailure for flags that there are not."""
        from runsc.cli import global_flags  # noqa: PLC0415  only where a sandbox is made
        from runsc.log import Log  # noqa: PLC0415

        made = global_flags(self.flags)
        debug = self.debug or made.debug
        log = Log(self.log_path or None, "text", debug)
        return made.changed(root=self.root, log=log, debug=debug)


def configured(given: messages.Any | None, own: messages.Any | None) -> messages.Any | None:
    """Those that hold for a container; `own`: the shim's.

    containerd has words for runc that come in place of the configured options: where a snapshot is
    (WithRestoreImagePath), who is to have the pipes (WithUIDOwner). client/task_opts.go.
    """
    if given is None or not given.type_url:
        return own
    is_own = own is None or not own.type_url or _is_runcs(own)
    return given if is_own or not _is_runcs(given) else own


def _is_runcs(options: messages.Any) -> bool:
    return options.type_url.rpartition("/")[2] == "containerd.runc.v1.Options"


def read(options: messages.Any | None, namespace: str) -> Settings:
    """Of a request. Raises: Refused."""
    try:
        return _settings(_table(options), namespace)
    except (OSError, ValueError, TypeError) as error:
        raise Refused(Code.INVALID_ARGUMENT, f"options of the runtime: {error}") from None


def _table(options: messages.Any | None) -> dict[str, Any]:
    if options is None or not options.type_url:
        return {}
    match options.type_url.rpartition("/")[2]:
        case "runtimeoptions.v1.Options":
            given = decode(messages.RuntimeOptions, options.value)
            if given.config_path:
                with open(given.config_path, "rb") as file:
                    return tomllib.load(file)
            return tomllib.loads(given.config_body.decode())
        case "containerd.runc.v1.Options":
            return _of_runc(decode(messages.RuncOptions, options.value))
    raise ValueError(f"type {options.type_url} is not known")


def _of_runc(given: messages.RuncOptions) -> dict[str, Any]:
    """io_uid and io_gid are containerd's own words, not its configuration's: for pods with a user
    namespace it says who is to have the pipes of a runtime that makes some."""
    names = ("shim_cgroup", "binary_name", "root")
    made = {name: getattr(given, name) for name in names}
    return {**made, "SystemdCgroup": given.systemd_cgroup}


def _settings(table: dict[str, Any], namespace: str) -> Settings:
    """Raises: ValueError that names what is not understood."""
    values = {"TypeUrl": "", "ConfigPath": "", "SystemdCgroup": False, **table}
    del values["TypeUrl"], values["ConfigPath"]
    flags = list(_flags(values.pop("runsc_config", {})))
    if values.pop("SystemdCgroup"):
        flags.append("--systemd-cgroup")
    level = _text(values, "log_level", "info")
    if level not in LEVELS:
        raise ValueError(f"log_level {level!r} is none of {', '.join(LEVELS)}")
    root = _text(values, "root", ROOT)
    made = Settings(
        os.path.join(root, namespace),
        tuple(flags),
        _text(values, "shim_cgroup"),
        _text(values, "log_path"),
        level in ("debug", "trace"),
    )
    for name, value in values.items():
        if name not in _NOT_HERE:
            raise ValueError(f"{name} is not known")
        if value:
            raise ValueError(f"{name} has no meaning: {_NOT_HERE[name]}")
    return made


def _text(values: dict[str, Any], name: str, default: str = "") -> str:
    value = values.pop(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value or default


def _flags(table: Any) -> list[str]:
    """runsc_config: names and values of global flags."""
    if not isinstance(table, dict):
        raise ValueError("runsc_config is no table")
    for name, value in table.items():
        if name in _OWN_PLACE:
            raise ValueError(f"runsc_config.{name}: the option {_OWN_PLACE[name]} says that")
        if not isinstance(value, str | bool | int):
            raise ValueError(f"runsc_config.{name} is no text")
    words = {name: str(it).lower() if isinstance(it, bool) else it for name, it in table.items()}
    return [f"--{name}={value}" for name, value in words.items()]


def save(bundle: str, settings: Settings) -> None:
    """Before there is something that `delete` would have to find."""
    with open(os.path.join(bundle, FILE), "wb") as file:
        file.write(msgspec.json.encode(settings))


def saved(bundle: str, namespace: str) -> Settings:
    """Those of the container whose bundle this is, as far as they are known."""
    try:
        with open(os.path.join(bundle, FILE), "rb") as file:
            return msgspec.json.decode(file.read(), type=Settings)
    except (OSError, msgspec.DecodeError):
        return Settings(os.path.join(ROOT, namespace))
