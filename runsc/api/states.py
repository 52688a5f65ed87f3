"""What is on disk about sandboxes, read only: who changes it is another process (`keeper.py`, or
the command line), for making a file that is its owner's alone changes the umask of all threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from runsc.api import policies
from runsc.api.errors import SandboxError, SandboxNotFound
from runsc.api.order import ANNOTATION, ORDER, Now, Order
from runsc.containers import state as state_file
from runsc.containers.names import check_id, check_root, default_root
from runsc.containers.state import State, status
from runsc.errors import RuntimeFailure
from runsc.launch.policy import LEARN
from sentry.control.orders import Decided

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runsc.api.values import PathLike


def root_of(state: PathLike | None) -> str:
    """The folder of states: that of the command line, if nobody says another one."""
    return os.path.abspath(os.fsdecode(state)) if state is not None else default_root()


def load(root: str, sandbox_id: str) -> State:
    """Raises: SandboxNotFound, SandboxError."""
    try:
        check_root(root)
        with open(os.path.join(root, check_id(sandbox_id), "state.json"), "rb") as file:
            return state_file.decode(file.read())
    except (FileNotFoundError, NotADirectoryError):
        raise SandboxNotFound(f'there is no sandbox "{sandbox_id}"') from None
    except (RuntimeFailure, ValueError) as error:
        raise SandboxError(f"{sandbox_id}: {error}") from None


def made_so(root: str) -> list[State]:
    """Those that the Python API has made, and that have not stopped; by their names.

    Raises: SandboxError.
    """
    found = []
    try:
        check_root(root)
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except FileNotFoundError:
        return []
    except (RuntimeFailure, ValueError) as error:
        raise SandboxError(str(error)) from None
    for name in names:
        try:
            state = load(root, name)
        except SandboxError:  # it has just been deleted
            continue
        if ANNOTATION in state.annotations and status(state) != "stopped":
            found.append(state)
    return found


def socket_of(root: str, sandbox_id: str) -> str:
    """Where it listens."""
    return os.path.join(root, sandbox_id, "control.sock")


def is_detached(state: State) -> bool:
    """It outlives who has made it."""
    return not state.foreground


def order_in(annotations: Mapping[str, str]) -> Order | None:
    """How it was made, of a sandbox of the Python API. Raises: SandboxError."""
    text = annotations.get(ORDER)
    try:
        return None if text is None else msgspec.json.decode(text, type=Order)
    except msgspec.DecodeError as error:
        raise SandboxError(str(error)) from None


def made_alike(one: Order, other: Order) -> bool:
    """Of the same things of the host: what one of them could be, the other can."""
    plain = [
        msgspec.structs.replace(
            each, sandbox_id="", state="", detach=False, expires_ns=0, memory=0, snapshot="",
            background=False, now=Now(),
        )
        for each in (one, other)
    ]  # fmt: skip
    return plain[0] == plain[1]


def now_of(decided: Decided) -> Now:
    """For a sandbox that begins with what was decided about another one."""
    policy = decided.policy
    source = "" if policy is None else LEARN if policy.learns else policy.source
    return Now(decided.egress, (), source, decided.injected)


def order_of(snapshot: str, *, trusted: bool) -> Order:
    """How the sandbox was made of which this is a snapshot, and what was decided about it by then;
    nobody serves its connections. It says what of the host it has, so one that somebody else has
    written has to be `trusted`. Raises: SandboxError."""
    from runsc.containers import snapshots  # noqa: PLC0415  few ask

    try:
        manifest = snapshots.read(snapshot)
    except RuntimeFailure as error:
        raise SandboxError(str(error)) from None
    order = order_in(manifest.annotations)
    if order is None:
        raise SandboxError(f"{snapshot}: it is none of a sandbox of the Python API")
    if not trusted and not snapshots.is_ours(manifest):
        raise SandboxError(
            f"{snapshot}: it was not made by this user on this machine: `trusted` lets it have what"
            " it asks for of the host"
        )
    text = manifest.annotations.get(snapshots.DECIDED)
    if text is None:  # nobody has noted that
        return order
    from sentry.net.egress.rules import PolicyError  # noqa: PLC0415  who restores needs more

    try:
        decided = msgspec.json.decode(text, type=Decided)
        egress = policies.unserved(decided.egress) if decided.egress is not None else None
    except (msgspec.DecodeError, PolicyError) as error:
        raise SandboxError(f"{snapshot}: damaged: {error}") from None
    now = msgspec.structs.replace(now_of(decided), egress=egress)
    return msgspec.structs.replace(order, now=now)
