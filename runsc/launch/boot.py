"""Become the Sentry: what a forked child does between the fork and the first guest instruction.

Descriptors, mounts, RAM file → empty root → rights → `prepare`, which opens and maps everything and
starts the vCPU threads, then calls back (imports cut → filter), and only then looks at files of the
container → `run`. The Gofer: runsc/launch/boot_gofer.py. See docs/isolation.md.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Protocol

import msgspec

from runsc import filters, host
from runsc.launch import isolation, uncounted
from runsc.launch.frozen import freeze_imports
from runsc.launch.kept import KeptCode
from runsc.launch.label import Label
from runsc.launch.title import set_title
from sentry.abi import prctl
from sentry.config import SandboxConfig, StartError, descriptors
from sentry.control.protocol import Event, Request, encode
from sentry.suppress import suppress


class Bootable(Protocol):
    """What `prepare` gives."""

    @property
    def ran_out(self) -> bool:
        """Whether a program was killed because memory ran out."""

    def fork_with(self, prepare: Callable[[], object], seal: Callable[[], object]) -> None:
        """Called before the first of its forks, and in each as the last thing of its beginning."""

    def run(self) -> int:
        """Run the sandbox to its end; the wait status of the first process."""

    def leave_files(self) -> None:
        """The Gofer ends while this process does."""


Prepare = Callable[[SandboxConfig, Callable[[], None]], Bootable]
"""sentry.boot.sandbox.prepare: the configuration, the last lockdown."""


class Terms(msgspec.Struct, frozen=True):
    """How the two processes are bound to the command line that makes them."""

    held: bool = False
    """The Sentry waits for "go" before it does anything: cgroups and hooks come first."""
    outlives: bool = False
    """They go on when the command line has said "keep" and is gone; else they end with it, and
    "begin" is what it says when the state on disk tells that the program runs."""
    own_terminal: bool = False
    """The terminal is one that the command line made: nobody's shell is behind it."""
    joins: tuple[int, ...] = ()
    """The container's cgroups: `runsc.cgroups.cgroup.join`."""
    label: Label = Label()
    """What the host's security modules are to know them by."""
    before_gofer: Callable[[], str] | None = None
    """Runs in the Gofer's namespaces before its trees are opened (createContainer hooks); what
    went wrong, else nothing. Then the Gofer waits for "go"."""


def sentry_main(
    config: SandboxConfig,
    prepare: Prepare,
    switches: filters.Switches,
    terms: Terms,
    kept: KeptCode | None = None,
) -> int:
    """The body of the Sentry's process; gives its exit code."""
    try:
        isolation.enter(descriptors(config) | set(terms.joins))
        join(terms.joins)
        set_title("runsc-sentry", config.container_id)
        os.dup2(config.log_fd, 2)
        if terms.held and not _hear(config.control_fd, "go"):
            return 1
        if terms.own_terminal:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the other end is closed
            from sentry.abi.ioctl import TIOCSCTTY  # noqa: PLC0415  the Gofer never has one

            fcntl.ioctl(config.stdio[0], TIOCSCTTY, 0)
        ram_fd = config.ram_fd
        if ram_fd < 0:
            ram_fd = isolation.open_ram(config.memory_limit, terms.label.mount_option)
        proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
        network = config.network if config.link is None else "none"  # which needs no call more
        services = config.services or config.egress is not None  # which may come to have brokers
        program = filters.sentry_program(config.platform, network, switches.trap, services=services)
        sealed = program
        if config.forkable:
            program = filters.forkable_program(switches.trap, network)
            sealed = filters.forkable_program(switches.trap, network, is_sealed=True)
        filters.forget_rules()
        put_on = terms.label.prepare()
        isolation.leave_root(more=terms.label.mount_option)
        freeze_imports(kept)  # no file is there any more
        pagemap_fd = isolation.open_pagemap(proc)
        isolation.drop_rights(isolation.Rights(isolation.NOBODY), put_on=put_on)
        # to SELinux a file of /proc/self has the label of when it was looked up
        statm_fd = os.open("self/statm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        os.close(proc)

        def lockdown() -> None:
            if not config.forkable:
                isolation.limit_tasks(0)
            filters.install(program, switches, config.log_fd)

        if config.forkable:
            uncounted.count_no_more()
        config = msgspec.structs.replace(
            config, ram_fd=ram_fd, statm_fd=statm_fd, pagemap_fd=pagemap_fd
        )
        sandbox = prepare(config, lockdown)
        if config.forkable:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for its children
            sandbox.fork_with(
                uncounted.count_code_no_more,
                lambda: filters.install(sealed, switches, config.log_fd),
            )
        if _is_alone(config.control_fd):
            return 1
        _send(config.control_fd, Event("ready"))
        if not _hear(config.control_fd, "keep" if terms.outlives else "begin"):
            return 1
        if terms.outlives:
            host.prctl(prctl.PR_SET_PDEATHSIG, 0)
            _send(config.control_fd, Event("kept"))
        status = sandbox.run()
        _tell(config, status, sandbox.ran_out)
        sandbox.leave_files()
        return exit_code(status)
    except StartError as error:
        _send(config.control_fd, Event("error", str(error)))
        return 1
    except Exception as error:  # a defect of ours: the log gets all of it, the caller a word
        _send(config.control_fd, Event("error", f"the Sentry failed: {error!r}"))
        raise


def _send(fd: int, event: Event) -> None:
    """Tell the command line, if it is still there."""
    try:
        os.write(fd, encode(event))
    except OSError:
        print(f"{event.event}: {event.message}", file=sys.stderr)


def _tell(config: SandboxConfig, status: int, ran_out: bool) -> None:
    """The stand-in ends with this status; if it has not ended before."""
    with suppress(OSError):
        if ran_out and config.victim_fd >= 0:
            os.write(config.victim_fd, b"\0")
            status -= 1 << 31  # after the victim
    if config.root.written_behind and status >= 0:
        status -= 1 << 31  # after the Gofer
    if config.stand_in_fd >= 0:
        with suppress(OSError):
            os.write(config.stand_in_fd, status.to_bytes(4, "little", signed=True))


def join(descriptors: tuple[int, ...]) -> None:
    if descriptors:
        from runsc.cgroups import cgroup  # noqa: PLC0415  few containers have one

        cgroup.join(descriptors)


def _hear(control_fd: int, word: str) -> bool:
    """Wait for this word of the command line; False when it has ended instead. What comes behind it
    is not read: that need not wait for an answer."""
    expected = encode(Request(word))
    return os.read(control_fd, len(expected)) == expected  # written in one piece


def _is_alone(control_fd: int) -> bool:
    """Whether the command line ended before PR_SET_PDEATHSIG could tell us."""
    poll = select.poll()
    poll.register(control_fd, 0)
    return bool(poll.poll(0))


def exit_code(status: int) -> int:
    """The exit code that stands for a wait status: 128 + n for a death by signal n."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)
