"""What happens to a container that is there: started, signalled, destroyed, swept up.

`launch` makes it. Everything here works from the state on disk and the control socket.
"""

from __future__ import annotations

import os
import select
from _signal import SIGKILL, pidfd_send_signal  # type: ignore[import-not-found]

from runsc.containers import asking
from runsc.containers.container import Store
from runsc.containers.processes import STOPPED, is_held_up, pidfd_of, start_time
from runsc.containers.state import State, status
from runsc.errors import Busy, NoContainer, NotRunning, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runsc.oci.hooks import StateDocument
    from sentry.control.protocol import Reply, Request

    Warn = Callable[[str], None]

ANSWER_S = 30.0
"""How long a sandbox may take to answer; it may have to be read back from swap."""
FORCED_PATIENCE_S = 1.0
"""How long `delete --force` waits for another command before it ends the container under it."""
KILL_ANSWER_S = 1.0
"""The same for SIGKILL, which comes from the host afterwards; and how long its end may take."""
END_MS = 10_000
"""How long a killed process may take to be gone."""
DRAINED_MS = 10_000
"""How long a Gofer may take to write what the Sentry has left it."""
HELD_UP_MS = 1500
"""The same where a file system of the host that does not answer keeps it. For a moment the end of
namespaces does so, too."""


def document(state: State, word: str) -> StateDocument:
    """What a hook reads."""
    from runsc.oci.hooks import StateDocument  # noqa: PLC0415  few containers have hooks

    return StateDocument(
        state.oci_version, state.id, word, state.bundle, state.pid, state.annotations
    )


def ask(
    store: Store,
    state: State,
    request: Request,
    patience_s: float = ANSWER_S,
    fds: Sequence[int] = (),
) -> Reply:
    """A question to the sandbox, with these descriptors.

    Raises: NotRunning, RuntimeFailure when it does not answer.
    """
    from runsc.containers import listener  # noqa: PLC0415  costs more than most commands

    with _Answering(state):
        return listener.ask(store.path(state.id, "control.sock"), request, patience_s, fds)


def tell(
    store: Store, state: State, request: bytes, patience_s: float | None = ANSWER_S
) -> str:
    """An order for the sandbox, as a line: what went wrong, "" if nothing did. None: it may take as
    long as it likes. Raises: as `ask`."""
    with _Answering(state):
        return asking.tell(store.path(state.id, "control.sock"), request, patience_s)


class _Answering:
    """What it means if no answer comes."""

    def __init__(self, state: State) -> None:
        self._id = state.id

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if isinstance(error, TimeoutError):
            text = f'the sandbox of container "{self._id}" does not answer'
            raise RuntimeFailure(text) from None
        if isinstance(error, (OSError, ValueError)):
            raise NotRunning(self._id) from None


def wait(store: Store, container_id: str, pid: int) -> int:
    """The wait(2) status of a process of the container, once it has ended.

    SIGKILL if the sandbox is killed meanwhile: nobody is left then who could tell. The first one
    is waited for on when the container goes back to a template (`rollback`).
    Raises: RuntimeFailure.
    """
    state = store.load(container_id)
    require_running(state)
    asked = _listener(store, container_id)
    found = _waited(store, container_id, pid)
    while found is None and pid == 1 and _goes_on(store, state, asked):
        asked = _listener(store, container_id)
        try:
            found = _waited(store, container_id, pid)
        except NotRunning:
            break
    return int(SIGKILL) if found is None else found


def _listener(store: Store, container_id: str) -> int:
    """The inode of the socket that it is asked at: each process has one of its own. 0: none."""
    try:
        return os.stat(store.path(container_id, "control.sock")).st_ino
    except OSError:
        return 0


def _goes_on(store: Store, state: State, asked: int) -> bool:
    """Whether another process has taken the place of the one that was asked."""
    try:
        with store.held(state.id) as now:  # who changes it has done so then
            return status(now) != STOPPED and _listener(store, state.id) not in (0, asked)
    except RuntimeFailure:
        return False


def _waited(store: Store, container_id: str, pid: int) -> int | None:
    """None: whom it asked is not there any more. Raises: RuntimeFailure."""
    try:
        sock = asking.connect(store.path(container_id, "control.sock"), None)
    except OSError:
        raise NotRunning(container_id) from None
    try:
        reply = asking.reply(asking.answer_to(sock, asking.line("wait", pid=pid), None))
    except asking.Ended:
        return None
    except (ConnectionResetError, BrokenPipeError):  # it was about to end, and has not read that
        raise NotRunning(container_id) from None
    except (OSError, ValueError):
        return int(SIGKILL)
    finally:
        sock.close()
    if reply.error:
        raise RuntimeFailure(f"waiting for process {pid} of \"{container_id}\": {reply.error}")
    return reply.wait_status


def require_running(state: State) -> None:
    """Raises: NotRunning."""
    if status(state) == STOPPED:
        raise NotRunning(state.id)


def start(store: Store, container_id: str) -> None:
    """Let the first process of a created container run. Raises: RuntimeFailure."""
    with store.held(container_id) as state:
        match status(state):
            case "created":
                pass
            case "stopped":
                raise RuntimeFailure(f'cannot start a container that has stopped: "{container_id}"')
            case "running":
                raise RuntimeFailure(f'cannot start an already running container: "{container_id}"')
            case word:
                raise RuntimeFailure(f'cannot start a container that is {word}: "{container_id}"')
        before_start(store, state)
        state.phase = "running"  # who hears of the program finds it so
        store.save(state)
        try:
            problem = tell(store, state, asking.line("start"))
        except BaseException:
            state.phase = "created"
            store.save(state)
            raise
        if problem:
            raise RuntimeFailure(problem)
    after_start(state)  # however long these hooks take, other commands go on


def before_start(store: Store, state: State) -> None:
    """The startContainer hooks. Raises: RuntimeFailure; then the container has been ended."""
    if not state.hooks.get("startContainer"):
        return
    from runsc.containers import start_hooks  # noqa: PLC0415  few containers have hooks

    try:
        start_hooks.run(store, state)
    except BaseException:
        end_processes(state)
        raise


def after_start(state: State) -> None:
    """The poststart hooks. Raises: RuntimeFailure; then, as with runc, the container has ended."""
    if not state.hooks.get("poststart"):
        return
    from runsc.oci import hooks  # noqa: PLC0415  few containers have hooks

    try:
        hooks.run(hooks.read(state.hooks), hooks.Phase.POSTSTART, document(state, "running"))
    except BaseException:
        end_processes(state)
        raise


def kill(store: Store, container_id: str, number: int, everyone: bool, pid: int = 1) -> None:
    """Send a signal to a process, usually the first, or to all. Raises: RuntimeFailure."""
    signal(store, store.load(container_id), number, everyone, pid)


def signal(store: Store, state: State, number: int, everyone: bool, pid: int) -> None:
    """The same of a container whose state has been read.

    SIGKILL ends the sandbox from outside where it does not end by itself.
    """
    word = status(state)
    if word == STOPPED:
        if everyone:
            return
        raise NotRunning(state.id)
    request = asking.line("kill", signal=number, pid=pid, all=everyone)
    if number != SIGKILL or pid != 1:
        if word == "creating":  # nobody listens before its hooks have run
            raise NotRunning(state.id)
        problem = tell(store, state, request)
        if problem:
            raise RuntimeFailure(f'{problem}: "{state.id}"')
        return
    try:
        if not tell(store, state, request, KILL_ANSWER_S) and _ends(state):
            return
    except RuntimeFailure:  # it hangs, or is just ending
        pass
    for _, pidfd in _kill(state):
        os.close(pidfd)


def _ends(state: State) -> bool:
    """Whether the container does, as its stand-in tells, without being made to.

    A program may be where no signal reaches it: in a file system of the host that is dead.
    """
    pidfd = _signal(state.pid, state.pid_start, 0)
    if pidfd < 0:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(KILL_ANSWER_S * 1000))
    finally:
        os.close(pidfd)


def pause(store: Store, container_id: str) -> None:
    """Hold all processes. Raises: RuntimeFailure.

    It is noted first: if this is killed in between, there is something to resume.
    """
    with store.held(container_id) as state:
        if status(state) not in ("created", "running"):
            raise NotRunning(container_id)
        state.paused = True
        store.save(state)
        try:
            _order(store, state, "pause")
        except BaseException:
            state.paused = False
            store.save(state)
            raise


def resume(store: Store, container_id: str) -> None:
    """Let them go on. Raises: RuntimeFailure."""
    with store.held(container_id) as state:
        if status(state) != "paused":
            raise RuntimeFailure(f'container not paused: "{container_id}"')
        _order(store, state, "resume")
        state.paused = False
        store.save(state)


def sync(store: Store, container_id: str) -> None:
    """All that its programs have done to files is on the host's disk, however long that takes.

    Raises: NotRunning, RuntimeFailure if the host has refused some of it.
    """
    state = store.load(container_id)
    require_running(state)
    problem = tell(store, state, asking.line("sync"), None)
    if problem:
        raise RuntimeFailure(f'not all is written: {problem}: "{container_id}"')


def _order(store: Store, state: State, order: str) -> None:
    """The sandbox knows what is true: it may be so already, and the state only not say it."""
    problem = tell(store, state, asking.line(order))
    if problem:
        from sentry.control.protocol import Request  # noqa: PLC0415  seldom

        word = ask(store, state, Request("state")).status
        if (word == "paused") != (order == "pause"):
            raise RuntimeFailure(f'{problem}: "{state.id}"')


def end_processes(state: State) -> None:
    """SIGKILL to all that it has, to their ends. Raises: RuntimeFailure."""
    for pid, pidfd in _kill(state):
        _await_end(pid, pidfd)


def destroy(store: Store, state: State, warn: Warn) -> None:
    """End a container and remove everything that is known of it; what is gone is no error, and
    nothing is done to another one that has its name by now.

    It is held from the look at its state to its end. Who does not let it go in time, as a command
    that waits for a hook, finds its processes ended.

    Raises: RuntimeFailure when something stays: then the state stays too.
    """
    if state.id in store.folders:
        _destroy(store, state, _kill(state), warn)
        return
    try:
        try:
            with store.held(state.id, FORCED_PATIENCE_S) as now:
                _destroy_as_known(store, state, now, warn)
        except Busy:
            now = store.load(state.id)
            end_processes(now if now.created == state.created else state)
            with store.held(state.id) as now:
                _destroy_as_known(store, state, now, warn)
    except NoContainer:
        end_processes(state)
        with store.locked():  # nobody has its name meanwhile, and what that would bring with it
            if not store.is_another(state.id, state.created):
                _remove_cgroup(state)
        store.forget_remains(state.id)


def _destroy_as_known(store: Store, state: State, now: State, warn: Warn) -> None:
    """What was made when `state` was, as it is `now`. Holds it."""
    if now.created != state.created:
        end_processes(state)
        return
    victims = _kill(now)
    if processes(state) != processes(now):  # it was being made, and not all has been noted
        victims += _kill(state)
    _destroy(store, now, victims, warn)


def _remove_cgroup(state: State) -> None:
    if state.cgroups.directories:
        from runsc.cgroups.recorded import of  # noqa: PLC0415  few containers have one

        cgroup = of(state.cgroups)
        cgroup.kill()
        cgroup.expel(_stays)
        cgroup.delete()


def _destroy(store: Store, state: State, victims: list[tuple[int, int]], warn: Warn) -> None:
    """`victims`: what `_kill` gave. Holds it."""
    if state.written_behind:
        _await_gofer(state, victims, warn)
    cgroup = None
    if state.cgroups.directories:
        from runsc.cgroups.recorded import of  # noqa: PLC0415  few containers have one

        cgroup = of(state.cgroups)
        cgroup.kill()
    held_up = {pid for pid, pidfd in victims if not _await_end(pid, pidfd)}
    if cgroup is not None:
        held_up |= cgroup.expel(_stays)
        cgroup.delete()
    for pid in held_up:
        warn(f"process {pid} is killed, and ends when a file system of the host answers")
    is_ours = store.remove(state.id, state.created)
    if is_ours and state.hooks.get("poststop"):  # else who has removed it runs them
        from runsc.oci import hooks  # noqa: PLC0415

        state.pid = 0
        hooks.run_all(hooks.read(state.hooks), hooks.Phase.POSTSTOP, document(state, STOPPED), warn)


def delete(store: Store, container_id: str, force: bool, warn: Warn) -> None:
    """`delete`: what has stopped or never started; with `force` whatever there is."""
    if not force:
        with store.held(container_id) as state:
            _check_over(state)
            destroy(store, state, warn)
        return
    try:
        destroy(store, store.load(container_id), warn)
    except NoContainer:
        store.forget_remains(container_id)


def _check_over(state: State) -> None:
    """Raises: RuntimeFailure."""
    word = status(state)
    if word not in (STOPPED, "created"):
        raise RuntimeFailure(
            f'cannot delete container "{state.id}" that is not stopped: {word}',
            hint=f"end it first: `runsc kill {state.id}`, or `runsc delete --force {state.id}`",
        )


def sweep(store: Store, warn: Warn) -> None:
    """Destroy what a killed `run` left behind: nobody else will."""
    for state in store.all():
        alive = start_time(state.creator_pid) == state.creator_start != 0
        if state.foreground and not alive:
            try:
                destroy(store, state, warn)
            except RuntimeFailure:
                continue


def _kill(state: State) -> list[tuple[int, int]]:
    """All its processes; pid and pidfd of those that there are.

    A Gofer that has something to write ends by itself when the Sentry has, or has let it go for the
    stand-in's end; and then the stand-in does. Before a program has run nothing is lost, and the
    Gofer may be held up by a hook.
    """
    gofer = 0 if state.written_behind and state.phase != "creating" else SIGKILL
    signals = (SIGKILL, gofer, gofer if state.sentry_pid else SIGKILL)
    known = zip(processes(state), signals, strict=True)
    found = [(pid, _signal(pid, start, number)) for (pid, start), number in known if pid]
    return [each for each in found if each[1] >= 0]


def processes(state: State) -> tuple[tuple[int, int], ...]:
    """Those of the host that it names, and when they have started: Sentry, Gofer, stand-in."""
    return (
        (state.sentry_pid, state.sentry_start),
        (state.gofer_pid, state.gofer_start),
        (state.pid, state.pid_start),
    )


def others(state: State) -> tuple[tuple[int, int], ...]:
    """The same of those that end by themselves when these have."""
    known = (each.split(":") for each in state.others)
    return tuple((int(pid), int(began)) for pid, began in known)


def _await_gofer(state: State, victims: list[tuple[int, int]], warn: Warn) -> None:
    """Until it has written what the Sentry has left it, for a bounded time; then all are killed."""
    poll = select.poll()
    for pid, pidfd in victims:
        if pid == state.gofer_pid:
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(DRAINED_MS):
                warn(f"process {pid} is killed before all names of files are on the host")
    for _, pidfd in victims:
        try:  # noqa: SIM105  contextlib costs more
            pidfd_send_signal(pidfd, SIGKILL)
        except ProcessLookupError:
            pass


def _signal(pid: int, started: int, number: int) -> int:
    """Signal a process if it is still that one. Gives a pidfd to wait on, -1 if it is gone."""
    pidfd = pidfd_of(pid, started)
    if pidfd >= 0:
        try:  # noqa: SIM105  contextlib costs more
            pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
    return pidfd


def _stays(pid: int, pidfd: int) -> bool:
    """Whether a killed process cannot end: one that closes packet sockets only takes a moment."""
    return not _await_end(pid, os.dup(pidfd))


def _await_end(pid: int, pidfd: int) -> bool:
    """Until a killed process has ended; False if that is not up to us. Raises: RuntimeFailure."""
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(HELD_UP_MS):
            return True
        if is_held_up(pid) and not poll.poll(0):  # else another process has its number
            return False
        if not poll.poll(END_MS):
            raise RuntimeFailure("container init still running")
        return True
    finally:
        os.close(pidfd)
