"""The options of a mount in config.json, as numbers.

The names are those of runtime-spec 1.2, config.md, "Linux mount options"; what is none of them is
data for the file system, as for mount(8).
"""

from __future__ import annotations

from msgspec import Struct

from sentry.abi import mount as abi

_SET = {
    "acl": 0,
    "async": 0,
    "atime": 0,
    "defaults": 0,
    "dev": 0,
    "diratime": 0,
    "dirsync": abi.MS_DIRSYNC,
    "exec": 0,
    "iversion": abi.MS_I_VERSION,
    "lazytime": abi.MS_LAZYTIME,
    "loud": 0,
    "mand": abi.MS_MANDLOCK,
    "noatime": abi.MS_NOATIME,
    "nodev": abi.MS_NODEV,
    "nodiratime": abi.MS_NODIRATIME,
    "noexec": abi.MS_NOEXEC,
    "noiversion": 0,
    "nolazytime": 0,
    "nomand": 0,
    "norelatime": 0,
    "nostrictatime": 0,
    "nosuid": abi.MS_NOSUID,
    "nosymfollow": abi.MS_NOSYMFOLLOW,
    "relatime": abi.MS_RELATIME,
    "remount": abi.MS_REMOUNT,
    "ro": abi.MS_RDONLY,
    "rw": 0,
    "silent": abi.MS_SILENT,
    "strictatime": abi.MS_STRICTATIME,
    "suid": 0,
    "symfollow": 0,
    "sync": abi.MS_SYNCHRONOUS,
}
_CLEAR = {
    "async": abi.MS_SYNCHRONOUS,
    "atime": abi.MS_NOATIME,
    "dev": abi.MS_NODEV,
    "diratime": abi.MS_NODIRATIME,
    "exec": abi.MS_NOEXEC,
    "loud": abi.MS_SILENT,
    "noiversion": abi.MS_I_VERSION,
    "nolazytime": abi.MS_LAZYTIME,
    "nomand": abi.MS_MANDLOCK,
    "norelatime": abi.MS_RELATIME,
    "nostrictatime": abi.MS_STRICTATIME,
    "rw": abi.MS_RDONLY,
    "suid": abi.MS_NOSUID,
    "symfollow": abi.MS_NOSYMFOLLOW,
}
_PROPAGATION = {
    "private": abi.MS_PRIVATE,
    "rprivate": abi.MS_PRIVATE | abi.MS_REC,
    "rshared": abi.MS_SHARED | abi.MS_REC,
    "rslave": abi.MS_SLAVE | abi.MS_REC,
    "runbindable": abi.MS_UNBINDABLE | abi.MS_REC,
    "shared": abi.MS_SHARED,
    "slave": abi.MS_SLAVE,
    "unbindable": abi.MS_UNBINDABLE,
}
_BIND = {"bind": abi.MS_BIND, "rbind": abi.MS_BIND | abi.MS_REC}
_COPY_UP = "tmpcopyup"
_RECURSIVE = {
    "r" + name: name
    for name in (
        "atime", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec",
        "norelatime", "nostrictatime", "nosuid", "nosymfollow", "relatime", "ro", "rw",
        "strictatime", "suid", "symfollow",
    )
}  # fmt: skip
"""Also of the mounts below: with runc they are set after all others, by mount_setattr(2)."""
_IDMAPPED = frozenset({"idmap", "ridmap"})
"""Of the mount alone, or also of those below it."""


class Options(Struct, frozen=True):
    """`flags` without MS_BIND; `bind` is MS_BIND with or without MS_REC, or 0."""

    flags: int
    propagation: int
    bind: int
    data: str
    idmapped: str = ""
    """How far the owners of files are mapped: idmap, ridmap."""
    copy_up: bool = False
    """tmpcopyup: a tmpfs starts with what was below it."""
    read_only_below: bool = False
    """rro: the mounts below a recursive bind mount are read-only, too."""


def names() -> set[str]:
    """The options that mean something to `parse`: not those that are for a file system."""
    return {*_SET, *_RECURSIVE, *_PROPAGATION, *_BIND, *_IDMAPPED, _COPY_UP}


def parse(options: list[str]) -> Options:
    """Sort the options of one mount; a later one wins over an earlier one, one that is for the
    mounts below, too, over all others."""
    flags = propagation = bind = 0
    data: list[str] = []
    idmapped = ""
    copy_up = read_only_below = False
    for option in sorted(options, key=_RECURSIVE.__contains__):
        if option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option in _BIND:
            bind = _BIND[option]
        elif option in _SET:
            flags = flags & ~_CLEAR.get(option, 0) | _SET[option]
        elif name := _RECURSIVE.get(option):
            flags = flags & ~_CLEAR.get(name, 0) | _SET[name]
            if name in ("ro", "rw"):
                read_only_below = name == "ro"
        elif option == _COPY_UP:
            copy_up = True
        elif option in _IDMAPPED:
            idmapped = option
        else:
            data.append(option)
    joined = ",".join(data)
    return Options(flags, propagation, bind, joined, idmapped, copy_up, read_only_below)
