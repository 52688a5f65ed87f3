"""The program `containerd-shim-runsc-v1`: the flags and actions that containerd calls it with.

`start` in the folder of a bundle, `delete` after a shim has died, `-info` and `-v`. Flags are as
Go's package flag takes them. Source: containerd's runtime/v2/README.md and pkg/shim/shim.go.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from runsc import __version__

NAME = "containerd-shim-runsc-v1"
RUNTIME = "io.containerd.runsc.v1"
FEATURES = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
_TEXTS = ("namespace", "id", "socket", "bundle", "address", "publish-binary")
_SWITCHES = ("debug", "v", "info")


class Flags(NamedTuple):
    """What stands before the action."""

    texts: dict[str, str]
    switches: frozenset[str]
    action: str


def parse(words: list[str]) -> Flags:
    """Raises: ValueError."""
    texts, switches = dict.fromkeys(_TEXTS, ""), set[str]()
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            return Flags(texts, frozenset(switches), word)
        name, equals, value = word.lstrip("-").partition("=")
        if name in _SWITCHES:
            if not equals or value.lower() in ("1", "t", "true"):
                switches.add(name)
        elif name in _TEXTS:
            texts[name] = value if equals else next(rest, "")
        else:
            raise ValueError(f"flag provided but not defined: -{name}")
    return Flags(texts, frozenset(switches), "")


def main() -> None:
    """The console script."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    words = sys.argv[1:]
    code = _by_zygote(words) if "start" in words else None
    os._exit(carried_out(words, os.getppid()) if code is None else code)


def carried_out(words: list[str], caller: int) -> int:
    """The exit code. `caller`: containerd's process."""
    try:
        said = _run(parse(words), caller)
    except Exception as error:
        return _failed(error)
    if said:
        os.write(1, said)
    return 0


def _by_zygote(words: list[str]) -> int | None:
    """The exit code, if a zygote has carried it out; None if nothing has happened."""
    from runsc.zygote import client  # noqa: PLC0415

    try:
        return client.run("shim", words, stands=False)
    except client.Unserved:
        return None


def _failed(error: Exception) -> int:
    from runsc.errors import RuntimeFailure  # noqa: PLC0415
    from runsc.shim.ttrpc import Refused  # noqa: PLC0415

    if not isinstance(error, RuntimeFailure | Refused | OSError | ValueError):
        import traceback  # noqa: PLC0415  a defect

        traceback.print_exception(error)
    os.write(2, f"{NAME}: {error}".encode())
    return 1


def _run(flags: Flags, caller: int) -> bytes:
    """What is printed."""
    if "v" in flags.switches:
        return f"{NAME}:\n  Version:  {__version__}\n\n".encode()
    if "info" in flags.switches:
        return _info()
    texts = flags.texts
    if not texts["namespace"]:
        raise ValueError("shim namespace cannot be empty")
    match flags.action:
        case "start":
            return _start(flags, caller).encode()
        case "delete":
            from runsc.shim.deleting import delete  # noqa: PLC0415

            return delete(texts["id"], texts["bundle"] or os.getcwd(), texts["namespace"])
    raise ValueError("start and delete are the actions; the shim itself is what start leaves")


def _start(flags: Flags, caller: int) -> str:
    from runsc.shim.publisher import Way  # noqa: PLC0415
    from runsc.shim.starting import start  # noqa: PLC0415

    texts = flags.texts
    way = Way(
        os.environ.get("TTRPC_ADDRESS", ""),
        texts["address"],
        texts["publish-binary"],
        texts["namespace"],
    )
    return start(texts["id"], way, caller)


def _info() -> bytes:
    """runtime.RuntimeInfo of containerd 2: what there is to know before a container is made."""
    import msgspec  # noqa: PLC0415

    from runsc.commands.features import features  # noqa: PLC0415
    from runsc.shim.messages import Any, RuntimeInfo, RuntimeVersion  # noqa: PLC0415
    from sentry.protobuf import encode  # noqa: PLC0415

    known = Any(FEATURES, msgspec.json.encode(features()))
    return encode(RuntimeInfo(RUNTIME, RuntimeVersion(__version__), features=known))


if __name__ == "__main__":
    main()
