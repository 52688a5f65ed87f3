"""`start`: make the shim of a pod, or find it, and say where it listens.

Source: containerd's runtime/v2/runc/manager/manager_linux.go and runtime/v2/README.md.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat
from contextlib import suppress

import msgspec

from runsc.cgroups import hierarchies
from runsc.errors import RuntimeFailure, why
from runsc.shim import options
from runsc.shim.daemon import Terms, serve
from runsc.shim.messages import Any
from runsc.shim.publisher import Way
from sentry.protobuf import decode

SOCKETS = "/run/containerd/s"
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
"""Annotations: containers with the same value have one shim."""
OPTIONS_MOST = 4 << 20
SANDBOXES = "io.containerd.sandbox.controller.v1.shim"
"""A folder of containerd's state that there is since version 2, which knows version 3 of what a
shim and it say to each other; what it says of itself in $MAX_SHIM_VERSION is 2 as before."""
OOM_MOST = 1000


class _Spec(msgspec.Struct):
    annotations: dict[str, str] = {}


def start(container_id: str, way: Way, caller: int) -> str:
    """What is printed. `caller`: containerd's process. Raises: RuntimeFailure, OSError."""
    bundle = os.getcwd()
    given = _options()
    settings = options.read(given, way.namespace)
    group = group_of(bundle)
    path = socket_path(way.grpc, way.namespace, group or container_id)
    listener = _listen(path)
    address = f"unix://{path}"
    _write(os.path.join(bundle, "address"), address)
    if listener is not None:
        terms = Terms(container_id, bundle, way, given, bool(group))
        _make(listener, path, terms, settings.shim_cgroup, caller)
        listener.close()
    version = protocol(bundle)
    if version < 3:
        return address
    made = {"version": version, "address": address, "protocol": "ttrpc"}
    return msgspec.json.encode(made).decode()


def socket_path(address: str, namespace: str, group: str) -> str:
    """As containerd's shims name theirs."""
    name = os.path.normpath("/".join(filter(None, (address, namespace, group))))
    return os.path.join(SOCKETS, hashlib.sha256(name.encode()).hexdigest())


def group_of(bundle: str) -> str:
    """Which containers share the shim of this one; "": none."""
    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            annotations = msgspec.json.decode(file.read(), type=_Spec | None)
    except (FileNotFoundError, msgspec.DecodeError):  # of a pod without a container of its own
        annotations = None
    found = annotations.annotations if annotations is not None else {}
    return next((found[name] for name in GROUPS if found.get(name)), "")


def protocol(bundle: str) -> int:
    """The version of what a shim and containerd say to each other."""
    most = os.environ.get("MAX_SHIM_VERSION", "")
    state = os.path.dirname(os.path.dirname(os.path.dirname(bundle)))
    known = most.isdigit() and int(most) >= 3
    return 3 if known or os.path.isdir(os.path.join(state, SANDBOXES)) else 2


def _options() -> Any | None:
    """From standard input, where containerd puts them."""
    mode = os.fstat(0).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return None
    data = bytearray()
    while (more := os.read(0, 1 << 16)) and len(data) < OPTIONS_MOST:
        data += more
    try:
        return decode(Any, bytes(data)) if data else None
    except ValueError as error:
        raise RuntimeFailure(f"options on standard input: {error}") from None


def _listen(path: str) -> socket.socket | None:
    """None if somebody listens there: the shim of this pod. One at a time looks: a socket that has
    its name does not listen yet."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _listen_alone(path)
    finally:
        os.close(lock)


def _listen_alone(path: str) -> socket.socket | None:
    for _ in range(2):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            if answers(path):
                return None
            with suppress(FileNotFoundError):
                os.unlink(path)
            continue
        os.chmod(path, 0o600)
        sock.listen(64)
        return sock
    raise RuntimeFailure(f"{path}: another shim is being started")


def answers(path: str) -> bool:
    """Somebody listens, who may have much to do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(temporary, path)


def _make(
    listener: socket.socket, path: str, terms: Terms, cgroup: str, caller: int
) -> None:
    """The daemon, a fork of this process."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write_end)
            os.read(read_end, 1)
            os.close(read_end)
            os.setsid()
            serve(listener, path, terms)
        finally:
            os._exit(0)
    os.close(read_end)
    if cgroup:
        _join(cgroup, pid)
    _adjust_oom_score(caller, pid)
    os.close(write_end)


def _join(cgroup: str, pid: int) -> None:
    """shim_cgroup: a path in each hierarchy. Raises: RuntimeFailure."""
    for each in hierarchies.read():
        folder = os.path.join(each.mount, cgroup.strip("/"))
        try:
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write(str(pid))
        except OSError as error:
            os.kill(pid, 9)
            raise RuntimeFailure(f"failed to join cgroup {cgroup}: {why(error)}") from None


def _adjust_oom_score(parent: int, pid: int) -> None:
    """One above containerd's, so that the shim goes first; where that cannot be, it stays."""
    with suppress(OSError, ValueError):
        with open(f"/proc/{parent}/oom_score_adj", encoding="ascii") as file:
            score = min(int(file.read()) + 1, OOM_MOST)
        with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
