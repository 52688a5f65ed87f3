"""runsc update: change the limits of a container that runs.

On the host they are files of the sandbox's cgroup, which is made now if the container has none
yet. Inside, the Sentry gets the limit of tasks and of memory. Memory that a container was not
started with cannot be added: a higher limit counts on the host, while the program keeps what it
sees.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from runsc.cgroups import hierarchies
from runsc.cgroups.cgroup import at
from runsc.cgroups.guest import on_host
from runsc.cgroups.recorded import of
from runsc.containers import lifecycle
from runsc.containers.container import Store
from runsc.containers.processes import STOPPED, is_same
from runsc.containers.state import State, status
from runsc.errors import RuntimeFailure
from runsc.oci.convert import bytes_of
from runsc.oci.resources import Resources, decode
from runsc.options import Globals
from sentry.control.protocol import Request

_PLACES = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_idle": ("cpu", "idle"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_share": ("cpu", "shares"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}
"""Flag → where its value stands in the document."""


@click.command(
    help="Change what the container CONTAINER-ID, which runs, may use. Flags that are not"
    " given stay as"
    " they are."
    "\n\n\b\nExample:\n"
    "  runsc update --memory 512m --pids-limit 100 web"
)
@click.option(
    "--resources",
    "-r",
    metavar="FILE",
    help="Take all from a file: `linux.resources` of config.json; -: from standard input.",
)
@click.option("--blkio-weight", type=int, help="Weight of block I/O, 10 to 1000.")
@click.option("--cpu-period", type=int, help="Microseconds in which --cpu-quota counts.")
@click.option("--cpu-quota", type=int, help="Microseconds of CPU in a period; -1: no limit.")
@click.option("--cpu-burst", type=int, help="Microseconds of the quota that may be saved up.")
@click.option(
    "--cpu-share",
    "--cpu-shares",
    "cpu_share",
    type=int,
    help="Its share of CPU beside others (1024 is usual).",
)
@click.option("--cpu-rt-period", type=int, help="--cpu-period of real-time tasks.")
@click.option("--cpu-rt-runtime", type=int, help="--cpu-quota of real-time tasks.")
@click.option("--cpu-idle", type=int, help="1: only CPU that nobody else wants.")
@click.option("--cpuset-cpus", help="CPUs to use, as 0-2,7.")
@click.option("--cpuset-mems", help="Memory nodes to use.")
@click.option("--kernel-memory", hidden=True, help="Has no effect, as in runc.")
@click.option("--kernel-memory-tcp", hidden=True, help="Has no effect, as in runc.")
@click.option("--memory", help="Limit of memory: bytes, or with b, k, m, g; -1: no limit.")
@click.option("--memory-reservation", help="What is to be left when memory is short.")
@click.option("--memory-swap", help="Limit of memory and swap together; -1: no limit.")
@click.option("--pids-limit", type=int, help="Tasks of the container; -1: no limit.")
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, /, container_id: str, resources: str | None, **values: Any) -> None:
    """As in runc a document, if there is one, is all that counts."""
    document = _from_flags(values) if resources is None else _read(resources)
    wanted = decode(document, "$")
    apply(flags.store(), container_id, wanted, flags.log.warning)


def apply(store: Store, container_id: str, wanted: Resources, warn: Callable[[str], None]) -> None:
    """The limits of a container from now on. Raises: RuntimeFailure."""
    with store.held(container_id) as state:
        if status(state) == STOPPED:
            raise RuntimeFailure(f'cannot update a stopped container: "{container_id}"')
        _limit_cgroup(store, state, wanted, warn)
        _limit_sentry(store, state, wanted)


def _read(path: str) -> Any:
    """The document of a file or of standard input."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
        return msgspec.json.decode(data)
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    except msgspec.DecodeError as error:
        raise RuntimeFailure(f"{path} is not JSON: {error}") from None
    except RecursionError:
        raise RuntimeFailure(f"{path} is nested too deeply") from None


def _from_flags(values: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for flag, value in values.items():
        if value is None or flag not in _PLACES:
            continue
        part, name = _PLACES[flag]
        if part == "memory":
            document.setdefault(part, {})[name] = size(value, flag.replace("_", "-"))
        else:
            document.setdefault(part, {})[name] = value
    return document


def size(text: str, flag: str) -> int:
    """A size as docker/go-units reads it: "64m", "1.5g", "100KiB"; -1 is no limit."""
    if text == "-1":
        return -1
    found = bytes_of(text)
    if found is None:
        raise RuntimeFailure(f"invalid value for {flag}: invalid size: '{text}'")
    return found


def _limit_cgroup(
    store: Store, state: State, wanted: Resources, warn: Callable[[str], None]
) -> None:
    """Raises: RuntimeFailure where the kernel refuses a value."""
    cgroup = of(state.cgroups)
    if not state.cgroups.directories and _asks_host(wanted):
        cgroup = at("", state.id, hierarchies.read())
        state.cgroups = cgroup.record
        store.save(state)
        cgroup.create()
        state.cgroups = cgroup.record
        store.save(state)
        for pid, started in (*lifecycle.processes(state), *lifecycle.others(state)):
            if is_same(pid, started):  # one may have ended, and its number be another's
                cgroup.add(pid)
    cgroup.apply(on_host(wanted, cgroup.memory_limit()), warn)


def _asks_host(wanted: Resources) -> bool:
    from runsc.cgroups.v1 import asks  # noqa: PLC0415

    return bool(asks(wanted) or wanted.unified)


def _limit_sentry(store: Store, state: State, wanted: Resources) -> None:
    """What counts inside the sandbox. As with runc 0 says nothing: what there is stays."""
    memory_limit = wanted.memory_limit
    if state.sandbox and wanted.memory is not None and wanted.memory.limit == -1:
        memory_limit = -1  # up to what its sandbox has
    request = Request(
        "update",
        pids_limit=(wanted.pids.limit or None) if wanted.pids else None,
        memory_limit=memory_limit,
        cpu_quota=(wanted.cpu.quota or None) if wanted.cpu else None,
        cpu_period=wanted.cpu.period if wanted.cpu else None,
        cpu_weight=wanted.cpu_weight,
    )
    if request == Request("update"):
        return
    reply = lifecycle.ask(store, state, request)
    if reply.error:
        raise RuntimeFailure(reply.error)
