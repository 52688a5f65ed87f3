"""Where the state of containers lies, and how containers may be called. Costs nothing to import."""

from __future__ import annotations

import os

from runsc.errors import RuntimeFailure

_MARKS = "_+-."


def default_root() -> str:
    """/run/runsc for root; below XDG_RUNTIME_DIR, or a private folder in /tmp, for others.

    Others are also who is root of a user namespace only, as with engines that need no root: /run
    is the host's there.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() == 0 and not (runtime and is_in_user_namespace()):
        return "/run/runsc"
    return os.path.join(runtime, "runsc") if runtime else f"/tmp/runsc-{os.geteuid()}"


def check_root(root: str) -> None:
    """What is noted in a folder of states is believed, and who listens there gets descriptors: it,
    and a link that leads to it, are this user's or root's, and nobody else writes to it.

    Raises: RuntimeFailure; OSError where there is none.
    """
    link, folder = os.lstat(root), os.stat(root)
    if not {link.st_uid, folder.st_uid} <= {os.geteuid(), 0}:
        raise RuntimeFailure(
            f"state directory (--root) {root} belongs to another user",
            hint="name one of your own with --root",
        )
    if folder.st_mode & 0o022:
        raise RuntimeFailure(
            f"state directory (--root) {root}: others may write to it",
            hint="what is noted there is believed: take their right (`chmod go-w`), or name"
            " another folder",
        )


def cache_folder() -> str:
    """What outlives a restart of the machine, and can be made again: below XDG_CACHE_HOME; without
    one below /var/cache for root, and ~/.cache for others."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        is_root = os.geteuid() == 0 and not is_in_user_namespace()
        base = "/var/cache" if is_root else os.path.expanduser("~/.cache")
    return os.path.join(base, "runsc")


def is_in_user_namespace() -> bool:
    """Whether ids are other ones than the host's: user_namespaces(7)."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def is_id(text: str) -> bool:
    """Whether a container can be called so."""
    fine = text.isascii() and all(c.isalnum() or c in _MARKS for c in text)
    return fine and text not in ("", ".", "..") and len(text) <= 255


def check_id(container_id: str) -> str:
    """The same names that runc takes. Raises: RuntimeFailure."""
    if not is_id(container_id):
        raise RuntimeFailure(
            f"invalid container ID format: {container_id!r}",
            hint="a name has letters, digits and _ + - . only, and 255 of them at most",
        )
    return container_id
