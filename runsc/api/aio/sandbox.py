"""`AsyncSandbox`: a sandbox as an object."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from runsc import faults
from runsc.api import states
from runsc.api.aio.changed import now
from runsc.api.aio.clock import AsyncClock
from runsc.api.aio.commands import AsyncCommands
from runsc.api.aio.connections import AsyncConnections
from runsc.api.aio.files import AsyncFiles
from runsc.api.aio.forking import AsyncForker, AsyncForkKeeper
from runsc.api.aio.keeping import AsyncKeeper, command
from runsc.api.aio.objects import PATIENCE_S, AsyncObjects
from runsc.api.aio.policy import AsyncPolicy, source_of
from runsc.api.aio.pty import AsyncPty
from runsc.api.aio.template import AsyncTemplate
from runsc.api.aio.wire import AsyncWire, ask
from runsc.api.errors import SandboxEnded, SandboxError, SandboxNotFound
from runsc.api.order import Order
from runsc.api.values import (
    Mount,
    PathLike,
    SandboxInfo,
    Snapshot,
    Stats,
    nanoseconds,
    number,
    variables,
)
from runsc.containers.state import State, status
from runsc.errors import NotRunning, RuntimeFailure
from runsc.progress import silent
from sentry.control.orders import InjectOrder
from sentry.control.protocol import Reply, Request
from sentry.faults import InjectRule, InjectState

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from runsc.api.aio.serving import Handler
    from runsc.fs import Device, FileSystem, ProcFile
    from runsc.progress import Tell

Infos = list[SandboxInfo]
Mounts = Mapping[str, "str | os.PathLike[str] | Mount | FileSystem"]
NAME_BYTES = 6
NETWORKS = ("none", "host", "sandbox", "private")
"""Or the path of a namespace."""


class AsyncSandbox:
    """One. Made by `create`, or found by `connect`."""

    def __init__(
        self, sandbox_id: str, state: str, user: str | int | None,
        keeper: AsyncKeeper | AsyncForkKeeper | None,
    ) -> None:  # fmt: skip
        self.sandbox_id = sandbox_id
        self._state = state
        self._user = user
        self._keeper = keeper
        self._owner = os.getpid()
        self._is_fork = isinstance(keeper, AsyncForkKeeper)
        self._forker = keeper.forker if isinstance(keeper, AsyncForkKeeper) else AsyncForker(state)
        self._path = states.socket_of(state, sandbox_id)
        self.commands = AsyncCommands(self._path, user)
        self.clock = AsyncClock(self._path)
        self.files = AsyncFiles(self._path, user)
        self.pty = AsyncPty(self._path, user)
        self._objects = AsyncObjects(self._path)
        self._connections = AsyncConnections(state, sandbox_id, self._path)
        self.policy = AsyncPolicy(self._path)

    @classmethod
    async def create(
        cls, *, root: PathLike | None = None, bundle: PathLike | None = None,
        image: str | os.PathLike[str] | None = None, memory: int | None = None,
        cpus: int | None = None, env: Mapping[str, str] | None = None,
        network: str = "none", egress: str | os.PathLike[str] | None = None,
        policy: str | os.PathLike[str] | None = None,
        mounts: Mounts | None = None, timeout: float | None = None,
        user: str | int | None = None, readonly: bool = False, detach: bool = False,
        forkable: bool = False,
        sandbox_id: str | None = None, state: PathLike | None = None, platform: str = "kvm",
        flags: Sequence[str] = (), progress: Tell | None = None,
    ) -> Self:  # fmt: skip
        """Make one. What programs write stays in its memory, whatever it is made of.

        It is made of `root`, a folder of the host or an image of EROFS; or of `bundle`, a folder
        with config.json, whose program is not run; or of `image`, an archive or layout, or the name
        of one that podman or Docker has, whose program is not run either (a path of `pathlib` is
        never a name); or, with none of them, of all the host's files.

        `memory` is in bytes, for all that runs in it; `cpus` so many CPUs of this process's. `env`
        is added to what its commands have: a PATH, or what the bundle says; nothing of this
        process's. `network`: "none" but itself; "host", sockets of the host; "sandbox", a network
        of its own, which `egress` may bound: a policy, as text or the path of a file; or the path
        of a network namespace; "private", one without a way out but what `on_connect` serves.
        `policy` decides on system calls from the first one on: Python as text, or the path of a
        file with Python or (.toml) rules: docs/policies.md. `mounts`: paths inside, to folders and
        files of the host, to read alone unless a `Mount` says otherwise, or to a `FileSystem`: see
        `mount`. After `timeout` seconds it is ended. `user` is whose rights commands and file
        operations have that name nobody. `readonly`: nothing can be written to its root. `detach`:
        it outlives this process, until `kill` or its `timeout`. `forkable`: `fork` copies it; what
        that gives its kernel to do, docs/isolation.md says. `state` is the folder in which
        sandboxes are noted, `flags` are more flags of the command line. `progress` is called while
        an image becomes a root, with what is done, how many of its bytes are, and of how many (0:
        nobody knows); what `runsc.progress.shown` gives shows it at a terminal.

        Raises: SandboxError; ValueError for what makes no sense.
        """
        if sum(each is not None for each in (root, bundle, image)) > 1:
            raise ValueError("root, bundle or image?")
        if not all(os.fspath(each) for each in (root, bundle, image) if each is not None):
            raise ValueError("root, bundle or image: an empty name is none")
        if network not in NETWORKS and not network.startswith("/"):
            words = ", ".join(NETWORKS)
            raise ValueError(f"network is {words} or the path of a namespace, not {network!r}")
        folder = states.root_of(state)
        name = sandbox_id or f"sandbox-{secrets.token_hex(NAME_BYTES)}"
        order = Order(
            sandbox_id=name,
            state=folder,
            root=_absolute(root),
            bundle=_absolute(bundle),
            image=os.fspath(image) if image is not None else "",
            image_is_path=image is not None and not isinstance(image, str),
            folder=os.getcwd() if image is not None else "/",
            platform=platform,
            memory=number("memory", memory),
            env=variables(env),
            network=network,
            egress=_text(egress),
            policy=source_of(policy) if policy is not None else None,
            mounts=tuple(
                _mount(target, source)
                for target, source in (mounts or {}).items()
                if isinstance(source, (str, os.PathLike, Mount))
            ),
            readonly=readonly,
            detach=detach,
            forkable=forkable,
            expires_ns=nanoseconds("timeout", timeout),
            flags=tuple(flags),
            tells=progress is not None,
        )
        served = {
            target: source
            for target, source in (mounts or {}).items()
            if not isinstance(source, (str, os.PathLike, Mount))
        }
        if served and detach:
            raise ValueError("what this process serves ends with it: not in a detached sandbox")
        tell = silent if progress is None else progress
        keeper = await AsyncKeeper.start(order, number("cpus", cpus), _warn, tell)
        if detach:
            await keeper.leave()
            return cls(name, folder, user, None)
        made = cls(name, folder, user, keeper)
        try:
            for target, source in served.items():
                await made.mount(target, source)
        except BaseException:
            await made.kill()
            raise
        return made

    @classmethod
    async def restore(
        cls, snapshot: Snapshot | str | os.PathLike[str], *, memory: int | None = None,
        cpus: int | None = None, timeout: float | None = None, user: str | int | None = None,
        detach: bool = False, sandbox_id: str | None = None, state: PathLike | None = None,
        trusted: bool = False, background: bool = False, progress: Tell | None = None,
    ) -> Self:  # fmt: skip
        """Make one that goes on where another one was when `snapshot` was made of it: what ran in
        it runs, what had been written is there. It is made of what that one was made of, which has
        to be there still; all else is as for `create`. Commands that ran then go on, but nobody
        hears of them any more. Policies and faults are those of then, with nothing used up of
        limits; what was served to that one is not there. Its folders, mounts and network are those
        that the snapshot names: of one that this user has not made on this machine only if it is
        `trusted`. In the `background` its memory is read when it is needed: it goes on sooner, and
        the snapshot must stay as it is while it does. `progress` is called while memory is read, as
        by `create`.

        Raises: SandboxError, which says what does not fit.
        """
        path = _folder(snapshot)
        folder = states.root_of(state)
        name = sandbox_id or f"sandbox-{secrets.token_hex(NAME_BYTES)}"
        order = msgspec.structs.replace(
            states.order_of(path, trusted=trusted),
            sandbox_id=name,
            state=folder,
            snapshot=os.path.abspath(path),
            background=background,
            detach=detach,
            expires_ns=nanoseconds("timeout", timeout),
            tells=progress is not None,
        )
        if memory is not None:
            order = msgspec.structs.replace(order, memory=number("memory", memory))
        tell = silent if progress is None else progress
        keeper = await AsyncKeeper.start(order, number("cpus", cpus), _warn, tell)
        if not detach:
            return cls(name, folder, user, keeper)
        await keeper.leave()
        return cls(name, folder, user, None)

    @classmethod
    async def connect(
        cls, sandbox_id: str, *, user: str | int | None = None, state: PathLike | None = None
    ) -> Self:
        """One that runs, whoever has made it. Raises: SandboxNotFound, SandboxEnded."""
        folder = states.root_of(state)
        if status(states.load(folder, sandbox_id)) == "stopped":
            raise SandboxEnded(f'sandbox "{sandbox_id}" has ended')
        return cls(sandbox_id, folder, user, None)

    @classmethod
    async def list(cls, *, state: PathLike | None = None) -> Infos:
        """Those that run, of this user's and made so; of containers of the command line tells
        `runsc list`."""
        return [_info(found) for found in states.made_so(states.root_of(state))]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, unless it is detached, or somebody else's."""
        if self._keeper is not None:
            await self.kill()

    def __repr__(self) -> str:
        return f"<sandbox {self.sandbox_id}>"

    async def kill(self) -> bool:
        """End it, with all that runs in it and all its forks, and forget it. False if it was gone,
        and in a forked child of who has made it: there nothing happens."""
        if self._keeper is not None and os.getpid() != self._owner:
            return False
        self._objects.close()
        self._connections.close()
        keeper, self._keeper = self._keeper, None
        if not self._is_fork:
            await self._forker.end()
        if keeper is not None:
            was_alive = await self.is_running()
            await keeper.end()
            return was_alive
        try:
            states.load(self._state, self.sandbox_id)
        except SandboxNotFound:
            return False
        await command(self._state, "delete", "--force", self.sandbox_id)
        return True

    async def pause(self) -> None:
        """Hold all that runs in it. Raises: SandboxEnded, SandboxError if it is paused."""
        if status(states.load(self._state, self.sandbox_id)) == "paused":
            raise SandboxError(f'sandbox "{self.sandbox_id}" is paused')
        await command(self._state, "pause", self.sandbox_id)

    async def resume(self) -> None:
        """Let it go on. Raises: SandboxEnded, SandboxError if it is not paused."""
        await command(self._state, "resume", self.sandbox_id)

    async def mount(
        self, path: str, served: FileSystem, *, readonly: bool = False,
        timeout: float = PATIENCE_S,
    ) -> None:  # fmt: skip
        """Mount a file system that this process serves, on a directory, which is made if it is not
        there. What it does not answer within `timeout` seconds is EIO for programs inside, and so
        is all of it then, and once this process has ended. Raises: SandboxEnded, SandboxError.
        """
        await self._objects.mount(path, served, readonly, timeout)

    async def unmount(self, path: str) -> None:
        """Take such a file system off again; what is open in it is EIO. Raises: SandboxEnded,
        SandboxError."""
        await self._objects.unmount(path)

    async def add_device(
        self, path: str, served: Device, *, mode: int = 0o666, timeout: float = PATIENCE_S
    ) -> None:
        """Make a character device that this process serves. `timeout` as of `mount`: it is for a
        method to return, not for data to come. Raises: SandboxEnded, SandboxError."""
        await self._objects.device(path, served, mode, timeout)

    async def add_proc_file(
        self, name: str, served: ProcFile, *, timeout: float = PATIENCE_S
    ) -> None:
        """Have a file in /proc whose text this process makes, as long as it lives. `timeout` as of
        `mount`. Raises: SandboxEnded, SandboxError."""
        await self._objects.proc_file(name, served, timeout)

    async def on_connect(
        self, place: str, handler: Handler | None = None
    ) -> Callable[..., object]:
        """Serve connections that programs make to `place`, such as "api.internal:443": `handler` is
        called with an `AsyncConnection` for each. Without a handler it gives a function that takes
        one: a decorator.

        The sandbox needs an egress policy, or the network "private"; a name has an address inside
        by this, if it has none. Another policy (`runsc egress set`) ends it. Raises: SandboxEnded,
        SandboxError, ValueError.
        """
        if handler is None:
            return partial(self.on_connect, place)
        await self._connections.serve(place, handler)
        return handler

    async def inject(self, *rules: str | os.PathLike[str] | InjectRule) -> None:
        """Have system calls, the Gofer or the network fail or be late, by rules in place of those
        that there are: as text (docs/faults.md), or the path of a file with some; none: no faults.
        Raises: SandboxEnded, SandboxError, ValueError.
        """
        found: list[InjectRule] = []
        for rule in rules:
            if isinstance(rule, InjectRule):
                found.append(rule)
            else:
                found += faults.rules_of(_text(rule) or "")
        await self._ask(Request("inject", inject=InjectOrder(tuple(found))))

    async def faults(self) -> Sequence[InjectState]:
        """Those rules, and what came of each. Raises: SandboxEnded."""
        return (await self._ask(Request("inject"))).injected

    async def fork(
        self, count: int = 1, *, timeout: float | None = None, hostname: str = "",
        memory: int | None = None, network: str | Sequence[str] | None = None,
        forkable: bool = False,
    ) -> Sequence[Self]:  # fmt: skip
        """So many copies of it as it is now, each a sandbox with the same processes, memory and
        files, which goes on by itself; after `timeout` seconds it is ended. `hostname` is theirs,
        if not as it is, and `memory` how many bytes each may have beside what is as it was, if it
        is not to be as many as this one's. With `network="sandbox"` each has one of its own, by
        passt(1), and with "none" none; by default it is as here. Where this one is behind the
        interfaces of a network namespace, that has to be said, or be a sequence of paths of other
        such namespaces, one for each copy. They can be copied themselves if they are `forkable`.

        It has to have been made `forkable`, and goes on, too, unless it is paused. Copies end with
        it, with `kill`, and with this process. Commands that run in it run in a copy, too, but
        their streams lead nowhere there until `commands.connect`. Raises: SandboxError.
        """
        names = await self._forker.fork(
            self.sandbox_id, number("count", count), timeout=timeout, hostname=hostname,
            memory=number("memory", memory), network=network, forkable=forkable,
        )  # fmt: skip
        return [self._fork(name) for name in names]

    def _fork(self, name: str) -> Self:
        keeper = AsyncForkKeeper(self._forker, name)
        return type(self)(name, self._state, self._user, keeper)

    async def create_template(self) -> AsyncTemplate[Self]:
        """A copy of it as it is now that stands still, for `fork` and `rollback`: a snapshot in
        memory. It is there until its `kill`, or the end of this one. Raises: SandboxError."""
        (name,) = await self._forker.fork(self.sandbox_id, 1, stands=True)
        return AsyncTemplate(self._fork(name))

    async def create_snapshot(
        self, path: str | os.PathLike[str], *, compression: str = "none",
        parent: Snapshot | str | os.PathLike[str] | None = None,
    ) -> Snapshot:  # fmt: skip
        """Write its state into a folder, which is made; it stands still meanwhile, and goes on.

        With its last snapshot, or the one that it was restored from, as `parent` only what has
        changed in memory since then is written; the new one needs the parent to be there.
        `compression` is "none" or "zstd". Raises: SandboxEnded, SandboxError, which says what
        cannot be written.
        """
        folder = os.path.abspath(path)
        before = "" if parent is None else os.path.abspath(_folder(parent))
        if compression != "none":  # which takes long, and no thread of the caller's
            more = (f"--parent={before}",) if before else ()
            await command(
                self._state, "checkpoint", "--leave-running", f"--image-path={folder}",
                f"--compression={compression}", *more, self.sandbox_id, patience_s=None,
            )  # fmt: skip
            return Snapshot(folder)
        from runsc.containers import snapshots  # noqa: PLC0415  few make some

        async with await AsyncWire.connect(self._path) as wire:
            found = states.load(self._state, self.sandbox_id)  # of who is connected, or it ended
            try:
                with snapshots.Making(found, snapshots.Wish(folder, parent=before)) as making:
                    await wire.send(making.request, making.fds)
                    making.finish(await wire.reply(None))
            except NotRunning:
                raise SandboxEnded(f'sandbox "{self.sandbox_id}" has ended') from None
            except RuntimeFailure as error:
                raise SandboxError(str(error)) from None
        return Snapshot(folder)

    async def rollback(
        self, snapshot: Snapshot | AsyncTemplate[Self] | str | os.PathLike[str], *,
        background: bool = False,
    ) -> None:  # fmt: skip
        """Put it back to where it was when `snapshot` was made of it, or of one that was made
        alike: under its name, with its time to live. Nobody hears any more of commands that run in
        it. `background` is as for `restore`.

        To a template of its own (`create_template`) it goes back by a fork of that, in the time of
        one; its forks go on, and a command that runs has its streams by `commands.connect`. To a
        snapshot on disk it ends and begins again: its forks and templates end, and what is wrong
        inside the snapshot is only seen when it has ended; a fork has no such way back.

        What was decided about it from outside is as now, not as then: policies, with what is used
        up of their limits, faults, and what this process serves: `on_connect`, and file systems,
        devices and files of /proc, which are there again when this returns. Raises: SandboxEnded,
        SandboxError: what does not fit, or, when it has gone back, what cannot be served there.
        """
        if isinstance(snapshot, AsyncTemplate):
            await self._forker.roll_back(self.sandbox_id, snapshot.sandbox_id)
            self._connections.close()
            await self._objects.begin_again()
            return
        path = os.path.abspath(_folder(snapshot))
        found = states.load(self._state, self.sandbox_id)
        order = states.order_in(found.annotations)
        if order is None or self._is_fork:
            why = "a fork, or what this API has not made, cannot be put back"
            raise SandboxError(f"{why}; `restore` makes a new sandbox of a snapshot")
        if not states.made_alike(order, states.order_of(path, trusted=True)):
            why = "it is of a sandbox that was made with other arguments"
            raise SandboxError(f"{path}: {why}; `restore` makes a new one of it")
        left = (await self._ask(Request("state"))).expires_ns
        cpus = len(os.sched_getaffinity(found.pid))
        attached = self._keeper is not None
        keeper = await AsyncKeeper.begin(order, cpus)  # which imports meanwhile
        try:
            changed = await now(self._path, self._connections)
            await self.kill()
        except BaseException:
            await keeper.end()
            raise
        self._forker = AsyncForker(self._state)
        order = msgspec.structs.replace(
            order, sandbox_id=self.sandbox_id, state=self._state, snapshot=path,
            background=background, expires_ns=left, detach=not attached, now=changed,
        )  # fmt: skip
        await keeper.make(order, _warn)
        if attached:
            self._keeper = keeper
        else:
            await keeper.leave()
        await self._connections.begin_again()
        await self._objects.begin_again()

    async def set_timeout(self, timeout: float | None) -> None:
        """It is ended in so many seconds from now, instead of when that was said before; None: it
        is not. Raises: SandboxEnded."""
        await self._ask(Request("expire", time_ns=nanoseconds("timeout", timeout)))

    async def is_running(self) -> bool:
        """It has not ended."""
        try:
            return status(states.load(self._state, self.sandbox_id)) != "stopped"
        except SandboxNotFound:
            return False

    async def info(self) -> SandboxInfo:
        """What is known of it. Raises: SandboxNotFound once it has ended and nothing is left."""
        found = states.load(self._state, self.sandbox_id)
        expires_in = None
        if status(found) != "stopped":
            try:
                expires_ns = (await self._ask(Request("state"))).expires_ns
                expires_in = expires_ns / 1e9 if expires_ns else None
            except SandboxEnded:
                found = states.load(self._state, self.sandbox_id)
        return _info(found, expires_in)

    async def stats(self) -> Stats:
        """What all that runs in it uses. Raises: SandboxEnded."""
        found = (await self._ask(Request("stats"))).stats
        if found is None:
            raise SandboxError("the sandbox tells nothing of what it uses")
        return Stats(
            found.user_ns / 1e9,
            found.system_ns / 1e9,
            found.memory,
            found.memory_limit,
            found.tasks,
            found.oom_kills,
        )

    async def _ask(self, request: Request) -> Reply:
        reply = await ask(self._path, request)
        if reply.error:
            raise SandboxError(reply.error)
        return reply


def _absolute(path: PathLike | None) -> str:
    return "" if path is None else os.path.abspath(os.fsdecode(path))


def _text(egress: str | os.PathLike[str] | None) -> str | None:
    """A policy itself, or the file that has it."""
    if egress is None or isinstance(egress, str):
        return egress
    with open(egress, encoding="utf-8") as file:
        return file.read()


def _mount(target: str, source: str | os.PathLike[str] | Mount) -> tuple[str, str, bool]:
    if not isinstance(source, Mount):
        source = Mount(os.fspath(source))
    return target, os.path.abspath(source.source), source.readonly


def _info(found: State, expires_in: float | None = None) -> SandboxInfo:
    return SandboxInfo(
        found.id, status(found), found.created, found.rootfs, states.is_detached(found), expires_in
    )


def _folder(snapshot: Snapshot | str | os.PathLike[str]) -> str:
    return snapshot.path if isinstance(snapshot, Snapshot) else os.fspath(snapshot)


def _warn(text: str) -> None:
    import logging  # noqa: PLC0415  there is seldom something to say

    logging.getLogger("runsc").warning("%s", text)
