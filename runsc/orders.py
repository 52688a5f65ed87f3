"""What the commands do that engines give most: functions of the flags, for both command lines.

`cli` reads any command line, `quick` those that need no help; both give what was read to these, by
its names. For each command that `quick` knows, so nothing is imported here that not all need.
"""

from __future__ import annotations

import sys

from runsc.containers import lifecycle
from runsc.containers.processes import STOPPED
from runsc.containers.state import status
from runsc.errors import NotRunning, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runsc.options import Globals
    from sentry.control.answers import ProcessInfo

FIRST = 1
"""The first process of a container."""


def create(
    settings: Globals, container_id: str, bundle: str, forkable: bool = False,
    policy: str | None = None, **wishes: Any,
) -> int:  # fmt: skip
    """Decode the bundle, make the sandbox, leave it."""
    from runsc.launch import bundle as bundles  # noqa: PLC0415
    from runsc.launch import launch  # noqa: PLC0415
    from runsc.launch.configure import Wishes  # noqa: PLC0415

    identity, container = bundles.understood(settings, bundle, container_id)
    _mark(identity.annotations, forkable, policy)
    launch.create(settings, identity, container, Wishes(**wishes, detach=True))
    return 0


def run(
    settings: Globals, container_id: str, bundle: str, publish: tuple[str, ...] = (),
    forkable: bool = False, policy: str | None = None, **wishes: Any,
) -> int:  # fmt: skip
    """Decode the bundle, start it, wait for its end."""
    from runsc.launch import bundle as bundles  # noqa: PLC0415
    from runsc.launch import launch  # noqa: PLC0415
    from runsc.launch.configure import Wishes  # noqa: PLC0415

    identity, container = bundles.understood(settings, bundle, container_id)
    _mark(identity.annotations, forkable, policy)
    if not publish:
        return launch.run(settings, identity, container, Wishes(**wishes))
    from runsc.launch import published  # noqa: PLC0415  few publish ports

    with published.serving(settings.store(), publish, outlives=wishes["detach"]) as when_there:
        wanted = Wishes(**wishes, when_there=when_there)
        return launch.run(settings, identity, container, wanted)


def _mark(annotations: dict[str, str], forkable: bool, policy: str | None) -> None:
    if policy is not None:
        from runsc.launch.policy import mark  # noqa: PLC0415  few have one

        mark(annotations, policy)
    if forkable:
        from runsc.launch.forkable import ANNOTATION  # noqa: PLC0415  few are

        annotations[ANNOTATION] = "true"


def restore(
    settings: Globals, container_id: str, bundle: str, image_path: str, forkable: bool = False,
    policy: str | None = None, **wishes: Any,
) -> int:  # fmt: skip
    """`run`, of what a snapshot has; it is looked at before anything is made."""
    from runsc import progress  # noqa: PLC0415
    from runsc.containers import snapshots  # noqa: PLC0415
    from runsc.launch import bundle as bundles  # noqa: PLC0415
    from runsc.launch import launch  # noqa: PLC0415
    from runsc.launch.configure import Wishes  # noqa: PLC0415

    snapshots.read(image_path)
    identity, container = bundles.understood(settings, bundle, container_id)
    _mark(identity.annotations, forkable, policy)
    with progress.shown() as tell:  # until all is read
        wanted = Wishes(**wishes, image=image_path, tell=tell)
        return launch.run(settings, identity, container, wanted)


def start(settings: Globals, container_id: str) -> int:
    """See lifecycle.start."""
    lifecycle.start(settings.store(), container_id)
    return 0


def kill(
    settings: Globals, container_id: str, signal: str, everyone: bool, pid: int | None
) -> int:
    """The container is looked for first, as runc does it."""
    from runsc.containers import signals  # noqa: PLC0415

    if everyone and pid is not None:
        raise RuntimeFailure("only one of --all and --pid can be given")
    store = settings.store()
    state = store.load(container_id)
    try:
        number = signals.number_of(signal)
    except ValueError as error:
        raise RuntimeFailure(str(error)) from None
    lifecycle.signal(store, state, number, everyone, FIRST if pid is None else pid)
    return 0


def pause(settings: Globals, container_id: str) -> int:
    """Gives when none of its processes runs any more."""
    lifecycle.pause(settings.store(), container_id)
    return 0


def resume(settings: Globals, container_id: str) -> int:
    """What `pause` held."""
    lifecycle.resume(settings.store(), container_id)
    return 0


def delete(settings: Globals, container_id: str, force: bool) -> int:
    """See lifecycle.delete."""
    lifecycle.delete(settings.store(), container_id, force, settings.log.warning)
    return 0


def state(settings: Globals, container_id: str) -> int:
    """As runc prints it: with the owner left empty."""
    from runsc.containers import showing  # noqa: PLC0415

    _print(showing.state(settings.store().load(container_id)))
    return 0


def ps(settings: Globals, container_id: str, form: str, options: Sequence[str]) -> int:
    """Ask the sandbox, for the host sees one process only. As with runc one that has stopped has
    none, which is no error."""
    if tuple(options) not in ((), ("-ef",)):
        raise RuntimeFailure("options of ps(1) are not known here: what is shown is `ps -ef`")
    if form not in ("table", "json"):
        raise RuntimeFailure(f"invalid format option: {form!r}; table or json")
    from runsc.containers import showing  # noqa: PLC0415

    store = settings.store()
    found = store.load(container_id)
    word = status(found)
    if form == "json":
        _print("null\n" if word == STOPPED else f"[{found.pid}]\n")
        return 0
    from sentry.control.protocol import Request  # noqa: PLC0415

    shown: Sequence[ProcessInfo] = ()
    if word != STOPPED:
        try:  # noqa: SIM105  contextlib costs more
            shown = lifecycle.ask(store, found, Request("ps")).processes
        except NotRunning:  # any more
            pass
    _print(showing.processes(shown))
    return 0


def wait(settings: Globals, container_id: str, pid: int | None, rootpid: int | None) -> int:
    """Ask the sandbox, which answers in its time; the names are those of gVisor's JSON."""
    from runsc.containers import showing  # noqa: PLC0415

    if pid is not None and rootpid is not None:
        raise RuntimeFailure("only one of --pid and --rootpid can be given")
    status = lifecycle.wait(settings.store(), container_id, pid or rootpid or FIRST)
    _print(showing.ended(container_id, status))
    return 0


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
