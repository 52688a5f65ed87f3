"""Labels of the host's security modules on the processes of a container: AppArmor, SELinux.

config.json names them for the program, of which those modules never see anything. So who carries
the container has them: Sentry, Gofer, network process, dialer, stand-in. A process puts its label
on when it needs nothing of the host any more, before no_new_privs, which would forbid it where the
caller has one itself; and while it has one thread, for each has its own.

What is written is that of apparmor(7), libapparmor's aa_change_profile(2) and aa_change_onexec(2),
and libselinux's setcon(3) and setexeccon(3): files of proc(5), /proc/PID/attr.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import msgspec

from runsc.errors import RuntimeFailure
from sentry.abi.layout import Record

if TYPE_CHECKING:
    from runsc.oci.convert import Container

ATTRIBUTES = "/proc/self/attr"
SELINUX = "/sys/fs/selinux"
_NO_SELINUX = "selinux label is specified in config, but selinux is disabled or not supported"
_APPARMOR = "apparmor profile: apparmor failed to apply profile"
_REFUSED = "unable to start container process: error during container init: unable to apply"


class Request(Record):
    """What is asked of a module, by one write to a file."""

    what: str
    file: str
    text: str

    def write(self, fd: int) -> None:
        """To the file, which is closed. Raises: OSError with a sentence, runc's."""
        try:
            os.write(fd, self.text.encode())
        except OSError as error:
            why = (error.strerror or "").lower()
            text = f"{_REFUSED} {self.what}: write {self.file}: {why}"
            raise OSError(error.errno, text) from None
        finally:
            os.close(fd)


class Label(msgspec.Struct, frozen=True):
    """Both; what is empty stays the caller's."""

    profile: str = ""
    """AppArmor's."""
    context: str = ""
    """SELinux's, of processes."""
    files: str = ""
    """SELinux's, of the file systems that are mounted for these processes."""

    @property
    def mount_option(self) -> str:
        """mount(8), context=: quoted, for categories have commas between them."""
        return f',context="{self.files}"' if self.files else ""

    @property
    def of_profile(self) -> Label:
        """AppArmor's alone."""
        return Label(self.profile)

    def put_on_program(self) -> None:
        """The program that this process executes next has it, also in a fork. Raises: OSError."""
        for request in self._requests("exec"):
            request.write(_open(request.file))

    def execute(self, program: int, title: str) -> NoReturn:
        """That. What SELinux's policy forbids is said here only, not when it was asked.

        Raises: OSError with a sentence.
        """
        try:
            os.execve(program, [title], {})
        except PermissionError as error:
            if not self.context:
                raise
            text = f"{_REFUSED} selinux label {self.context}: execve: permission denied"
            raise OSError(error.errno, text) from None

    def prepare(self) -> Callable[[], None]:
        """Open what is needed; what is given puts it on this thread, in whatever root.

        Raises: OSError, both.
        """
        opened = [(each, _open(each.file)) for each in self._requests("current")]

        def put_on() -> None:
            for request, fd in opened:
                request.write(fd)

        return put_on

    def _requests(self, name: str) -> list[Request]:
        """AppArmor's own folder came with Linux 5.8."""
        made = []
        if self.profile:
            own = f"{ATTRIBUTES}/apparmor/{name}"
            verb = "exec" if name == "exec" else "changeprofile"
            file = own if os.path.exists(own) else f"{ATTRIBUTES}/{name}"
            made.append(Request(_APPARMOR, file, f"{verb} {self.profile}"))
        if self.context:
            made.append(Request("selinux label", f"{ATTRIBUTES}/{name}", self.context))
        return made


def of(container: Container) -> Label:
    """That of config.json. Raises: RuntimeFailure, as runc, where there is no SELinux."""
    label = Label(container.apparmor_profile, container.selinux_label, container.mount_label)
    if (label.context or label.files) and not os.path.exists(f"{SELINUX}/enforce"):
        raise RuntimeFailure(_NO_SELINUX)
    if label.files:
        _check(label.files)
    return label


def of_bundle(bundle: str) -> Label:
    """That of a container that another command has made, for one more process of it. Sandboxes of
    the Python API that are made of no bundle have no config.json, and no label.

    Raises: RuntimeFailure.
    """
    from runsc.oci import spec  # noqa: PLC0415  who makes a container has it

    if bundle == "/" and not os.path.lexists("/config.json"):
        return Label()
    document = spec.load(bundle)
    linux, process = document.linux or spec.Linux(), document.process
    if process is None:
        return Label(files=linux.mount_label)
    return Label(process.apparmor_profile, process.selinux_label, linux.mount_label)


def _check(context: str) -> None:
    """As security_check_context(3): mount(2) would only say EINVAL, and late."""
    fd = _open(f"{SELINUX}/context")
    try:
        os.write(fd, context.encode())
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise RuntimeFailure(f"linux.mountLabel {context}: invalid argument") from None
    finally:
        os.close(fd)


def _open(file: str) -> int:
    return os.open(file, os.O_WRONLY | os.O_CLOEXEC)
