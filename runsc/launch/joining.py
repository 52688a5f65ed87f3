"""Whether a container belongs to a sandbox that runs, and what it shares there.

By annotation, as containerd and CRI-O (and podman) write them, or because config.json names a
namespace by a path that is that of a running container's stand-in: podman's pods, and
`--network|pid|ipc|uts container:ID`. It shares what it names, and nothing else. Only containers of
the same state root and the same owner are looked at; what would join two sandboxes is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runsc.containers.container import Store
from runsc.containers.processes import STOPPED
from runsc.containers.state import State, status
from runsc.errors import RuntimeFailure
from sentry.abi.layout import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runsc.oci.convert import Container

CRI = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
CRI_O = "io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"
KINDS = {"ipc": "ipc", "network": "net", "pid": "pid", "uts": "uts"}
"""Namespaces that containers can share, and their files in /proc/PID/ns."""
Inode = tuple[int, int]


class Joint(Record):
    """Where a container belongs to."""

    sandbox: State
    """The container that made the sandbox."""
    shares: tuple[tuple[str, str], ...]
    """(namespace, id of a container whose it is)."""


def is_sandbox(annotations: dict[str, str]) -> bool:
    """Others will join this one: it is a pod's first."""
    return any(annotations.get(kind) == "sandbox" for kind, _ in (CRI, CRI_O))


def find(
    store: Store, container_id: str, annotations: dict[str, str], container: Container
) -> Joint | None:
    """None: it makes a sandbox of its own. Raises: RuntimeFailure."""
    paths = {kind: path for kind, path in container.namespaces if path and kind in KINDS}
    named = _annotated(annotations, container_id)
    if not paths and named is None:
        return None
    states = {state.id: state for state in store.all() if state.id != container_id}
    made_by = _named_sandbox(states, named, store.root) if named is not None else None
    running = [state for state in states.values() if status(state) not in (STOPPED, "creating")]
    members = [state for state in running if made_by in (None, _maker(state))]
    found = _matches(paths, members, own_too=made_by is not None)
    makers = {_maker(state): kind for kind, state in found.items()}
    if made_by is not None:
        others = [state for state in running if _maker(state) != made_by]
        for kind, state in _matches(paths, others, own_too=False).items():
            if kind not in found:
                makers[_maker(state)] = kind
        makers[made_by] = "named"
    if len(makers) > 1:
        names = ", ".join(f'"{name}"' for name in sorted(makers))
        raise RuntimeFailure(f"config.json names parts of different sandboxes: {names}")
    if not makers:
        return None
    maker = states.get(next(iter(makers)))
    if maker is None or status(maker) == STOPPED:
        raise RuntimeFailure(f'the sandbox "{next(iter(makers))}" has stopped')
    _check(maker, paths, found)
    return Joint(maker, tuple((kind, state.id) for kind, state in sorted(found.items())))


def _maker(state: State) -> str:
    """The id of the container that made its sandbox."""
    return state.sandbox or state.id


def _annotated(annotations: dict[str, str], container_id: str) -> tuple[str, str] | None:
    """The key and the id that say where it belongs to."""
    for kind, key in (CRI, CRI_O):
        named = annotations.get(key, "")
        if annotations.get(kind, "container") == "container" and named not in ("", container_id):
            return key, named
    return None


def _named_sandbox(states: dict[str, State], named: tuple[str, str], root: str) -> str | None:
    """The maker of that sandbox. Raises: RuntimeFailure.

    What CRI-O's key names may be a pod that has no container of its own (podman).
    """
    key, container_id = named
    state = states.get(container_id)
    if state is not None:
        return _maker(state)
    if key == CRI_O[1]:
        return None
    raise RuntimeFailure(f'{key}: there is no sandbox "{container_id}" in {root}')


def _inode(path: str) -> Inode | None:
    try:
        info = os.stat(path)
    except OSError:  # who enters it says so
        return None
    return info.st_dev, info.st_ino


def _matches(
    paths: dict[str, str], states: Iterable[State], *, own_too: bool
) -> dict[str, State]:
    """The container whose stand-in is in each of these namespaces, if there is one.

    What is the caller's own namespace is the host's, unless the sandbox is known (`own_too`) and
    its is that.
    """
    found: dict[str, State] = {}
    for kind, path in paths.items():
        name = KINDS[kind]
        wanted = _inode(path)
        if wanted is None or (not own_too and wanted == _inode(f"/proc/self/ns/{name}")):
            continue
        for state in states:
            if _inode(f"/proc/{state.pid}/ns/{name}") == wanted:
                found[kind] = state
                if not state.sandbox:
                    break
    return found


def _check(maker: State, paths: dict[str, str], found: dict[str, State]) -> None:
    """Raises: RuntimeFailure. A network namespace of its own is fine: it is another network."""
    if maker.owner != os.geteuid():
        raise RuntimeFailure(f'the sandbox "{maker.id}" belongs to another user')
    for kind, path in paths.items():
        if kind != "network" and kind not in found:
            raise RuntimeFailure(
                f'the {kind} namespace {path} is none of the sandbox "{maker.id}",'
                " to which the container belongs"
            )
