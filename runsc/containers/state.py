"""What state.json says of a container."""

from __future__ import annotations

from runsc import as_json
from runsc.cgroups import Record
from runsc.containers.processes import word_for
from runsc.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


ORIGIN = "dev.runsc.fork-of"
"""Annotation of a fork: the container that it is a copy of."""
TEMPLATE = "dev.runsc.template"
"""Of a fork that stands still, to be forked: "true"."""
NAMESPACE = "dev.runsc.network-namespace"
"""Of a fork: in which network namespace it is; of a template, who goes on from there."""
OF_FORKS = frozenset({ORIGIN, TEMPLATE, NAMESPACE})
"""Never taken from config.json: they say where processes of ours go."""


class State(Value):
    """What is kept of a container. The first five are the specification's state."""

    oci_version: str
    id: str
    bundle: str
    pid: int = 0
    """The stand-in: lives on the host as long as the container's first process."""
    annotations: dict[str, str] = {}  # noqa: RUF012  see Value
    rootfs: str = ""
    created: str = ""
    owner: int = 0
    pid_start: int = 0
    """Start time of that process in clock ticks: tells it from a later one with the same number."""
    sentry_pid: int = 0
    sentry_start: int = 0
    gofer_pid: int = 0
    gofer_start: int = 0
    others: tuple[str, ...] = ()
    """Its network process and what is beside the sandbox (passt, a dialer): "PID:START" each."""
    foreground: bool = False
    """Made by `run` without --detach: ends, and goes away, with that command."""
    phase: str = "creating"
    """ "creating", "created", "running": what the last command brought about."""
    creator_pid: int = 0
    creator_start: int = 0
    """The command that is creating it."""
    sandbox: str = ""
    """The container whose sandbox this one has joined; "": it made its own."""
    network: str = ""
    """The sandbox's: "host", "sandbox" or "none"."""
    low_ports: bool = False
    """Sockets of the host may be bound to privileged ports."""
    judged: bool = False
    """What leaves that network is, by a policy."""
    brokers: tuple[str, ...] = ()
    """Sockets of the host that its policies have named. Which policy it has now it says itself, and
    is not to be believed that others are in it."""
    ruled: bool = False
    """It was started with a policy for system calls."""
    services: bool = False
    """It was made with sockets of the host as mounts."""
    paused: bool = False
    written_behind: bool = False
    """The Gofer has still to write what the Sentry has left it, when that has ended."""
    cgroups: Record = Record()
    hooks: dict[str, Any] = {}  # noqa: RUF012  see Value
    """As in config.json: see `runsc.oci.hooks.read`."""
    hook_process: dict[str, Any] = {}  # noqa: RUF012  see Value
    """`process` of config.json, where startContainer hooks are run like it; else empty."""


def status(state: State) -> str:
    """OCI's word for it: creating, created, running, paused, stopped."""
    creator, sandbox = (state.creator_pid, state.creator_start), (state.pid, state.pid_start)
    return word_for(state.phase, creator, sandbox, state.paused)


def encode(state: State) -> bytes:
    """The file. What is as it was when the container began is left out."""
    return as_json.dumps(_document(state))


def decode(data: bytes) -> State:
    """What is in the file; fields of others are not looked at. Raises: ValueError."""
    made: State = _value(State, as_json.loads(data), "$")
    return made


def _key(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


def _document(value: Value) -> dict[str, Any]:
    made = {}
    for name in value.fields():
        found = getattr(value, name)
        if found == getattr(type(value), name, None):
            continue
        if isinstance(found, Value):
            found = _document(found)
        made[_key(name)] = found
    return made


def _value(kind: type[Value], document: object, where: str) -> Any:
    if type(document) is not dict:
        raise ValueError(f"Expected `object` - at `{where}`")
    given = {}
    for name, kind_of in kind.fields().items():
        key = _key(name)
        if key in document:
            given[name] = _checked(kind_of, document[key], f"{where}.{key}")
        elif not hasattr(kind, name):
            raise ValueError(f"Object missing required field `{key}`")
    return kind(**given)


def _checked(kind: str, found: Any, where: str) -> Any:
    """What belongs to a field of this annotation."""
    match kind:
        case "Record":
            return _value(Record, found, where)
        case "dict[str, Any]" if type(found) is dict:
            return found
        case "dict[str, str]" if type(found) is dict and _are_texts(found.values()):
            return found
        case "tuple[str, ...]" if type(found) is list and _are_texts(found):
            return tuple(found)
        case "str" | "int" | "bool" if type(found).__name__ == kind:
            return found
    raise ValueError(f"Expected `{kind}` - at `{where}`")


def _are_texts(found: Iterable[object]) -> bool:
    return all(type(each) is str for each in found)
