"""What there is to say to an engine, and how an engine is described here."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from runsc.errors import RuntimeFailure


class SettingsError(RuntimeFailure):
    """A file of an engine cannot be understood, or not be changed so."""


SHIM = "containerd-shim-runsc-v1"
"""The name of containerd's shim, as its PATH rule makes it of the runtime's type."""


class Runtime(Struct, frozen=True):
    """A runtime as an engine is told of it."""

    name: str
    path: str
    """The program, absolute."""
    flags: tuple[str, ...] = ()
    """Global flags that come before each command."""
    shim: str = ""
    """containerd's shim beside it, absolute, if it is there."""


class Engine(Struct, frozen=True):
    """An engine. The functions are from the text of its file ("" if there is none).

    `runtimes` gives the programs by name, `add` and `remove` the text afterwards.
    Raises (all three): SettingsError.
    """

    name: str
    programs: tuple[str, ...]
    """By one of these it is known that it is there."""
    file: Callable[[], str]
    runtimes: Callable[[str], dict[str, str]]
    add: Callable[[str, Runtime], str]
    remove: Callable[[str, str], str]
    afterwards: str
    """What has to be done for a change to be seen."""


def not_found(name: str) -> SettingsError:
    """There is nothing to take away."""
    return SettingsError(f'runtime "{name}" not found')


def is_anothers(name: str) -> SettingsError:
    """It cannot be added."""
    return SettingsError(
        f'it has a runtime "{name}" that `runsc install` did not write: take it away there, or'
        " choose another --runtime"
    )


def is_not_ours(name: str) -> SettingsError:
    """It cannot be taken away."""
    return SettingsError(f'`runsc install` did not write the runtime "{name}" there')


def is_default(name: str) -> SettingsError:
    """The engine would be without one."""
    return SettingsError(f'"{name}" is the default runtime: choose another one there first')
