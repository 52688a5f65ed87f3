"""What the flags of `runsc do` that `docker run` has, too, mean for a bundle.

Their words are docker's; what a value means is said where it is another thing here. Each function
raises RuntimeFailure, one line that names the flag.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from runsc.errors import RuntimeFailure
from runsc.oci import convert, spec

if TYPE_CHECKING:
    from runsc.accounts import Ids

PERIOD_US: Final = 100_000
LEAST_US: Final = 1000
"""cgroup-v2.rst, cpu.max: no quota is shorter."""
VOLUME: Final = "SRC:DST[:ro], a file or folder of the host and where it is inside"
WITHOUT_EFFECT: Final = frozenset({"z", "Z"})
"""Of a volume: labels of SELinux are for who runs programs under one, which `do` does not."""
MAX_FILE: Final = 1 << 20
"""Bytes of a file with variables, of users, or of groups."""
PASSWD, GROUP = "etc/passwd", "etc/group"


def volume(text: str) -> spec.Mount:
    """SRC:DST[:ro], or SRC alone, which is at the same place inside."""
    source, *more = text.split(":")
    given = os.path.realpath(source) if source else ""
    target = os.path.normpath(more[0] or ".") if more else given
    options = {*more[1].split(",")} - WITHOUT_EFFECT if len(more) == 2 else set()
    if not source or len(more) > 2 or not options <= {"ro", "rw"} or len(options) > 1:
        raise RuntimeFailure(f"--volume {text!r}: {VOLUME}")
    if not target.startswith("/") or not target.strip("/"):
        raise RuntimeFailure(f"--volume {text!r}: {target!r} is no path below / inside")
    if not os.path.exists(given):
        why = "no such file or directory"
        if "/" not in source:
            why += "; volumes have no names here, only places on the host"
        raise RuntimeFailure(f"--volume {text!r}: {given}: {why}")
    return spec.Mount(target, "bind", given, ["rbind", "rro" if "ro" in options else "rw"])


def variables(files: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, or NAME alone: as it is outside, if it is there. What is last counts."""
    found: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            if line and not line.startswith("#"):
                found.update(_variable(line, f"--env-file {path}, line {number}"))
    for word in words:
        found.update(_variable(word, "--env"))
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise RuntimeFailure(f"--env-file {path}: {(error.strerror or '').lower()}") from None
    if len(text) > MAX_FILE or "\0" in text:
        raise RuntimeFailure(f"--env-file {path}: this is no file of variables")
    return [line.strip() if line.lstrip()[:1] == "#" else line.lstrip()
            for line in text.split("\n")]  # fmt: skip


def _variable(text: str, where: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not name or name != name.strip():
        raise RuntimeFailure(f"{where}: {text!r} is not NAME=VALUE")
    if equals:
        return {name: value}
    return {name: os.environ[name]} if name in os.environ else {}


def cpu_quota(text: str) -> dict[str, Any]:
    """How many CPUs it may use, such as 0.5: linux.resources of config.json."""
    whole, _, part = text.partition(".")
    most = len(os.sched_getaffinity(0))
    if not (f"{whole}{part}".isdigit() and text.isascii() and len(text) < 16):
        raise RuntimeFailure(f"--cpus {text!r}: a number of CPUs, such as 0.5 or 2")
    quota = round(float(text) * PERIOD_US)
    if not LEAST_US <= quota <= most * PERIOD_US:
        raise RuntimeFailure(f"--cpus {text}: from {LEAST_US / PERIOD_US} to {most}, as many as"
                             " there are here")  # fmt: skip
    return {"cpu": {"quota": quota, "period": PERIOD_US}}


def host_name(text: str) -> str:
    """sethostname(2): at most 64 bytes."""
    if not text or len(os.fsencode(text)) > 64 or "\n" in text:
        raise RuntimeFailure(f"--hostname {text!r}: a name of 1 to 64 bytes")
    return text


def user(text: str, root: str) -> Ids:
    """NAME or UID, perhaps :GROUP or :GID, by the files of a tree."""
    from runsc.accounts import ids_of  # noqa: PLC0415  few name one

    return ids_of(text, _file(root, PASSWD), _file(root, GROUP))


def _file(root: str, name: str) -> bytes:
    """Nothing if the tree has no such file of its own, where links may lead out of it."""
    top = os.path.realpath(root)
    path = os.path.realpath(os.path.join(top, name))
    try:
        if os.path.commonpath((top, path)) != top:
            return b""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        with open(fd, "rb", closefd=False) as file:
            return file.read(MAX_FILE)
    finally:
        os.close(fd)


def interpreter(environment: Mapping[str, str]) -> str:
    """The Python that its caller would get, of a virtual environment, too; else ours."""
    import shutil  # noqa: PLC0415  few run Python

    found = shutil.which("python3", path=environment.get("PATH"))
    return os.path.abspath(found) if found is not None else sys.executable


def is_folder(root: str, path: str, volumes: list[spec.Mount]) -> bool:
    """Whether there is one inside, where a volume may be. Preconditions: it is absolute."""
    path = os.path.normpath(path)
    for each in reversed(volumes):
        if os.path.commonpath((path, each.destination)) == each.destination:
            return os.path.isdir(os.path.join(each.source, os.path.relpath(path, each.destination)))
    return os.path.isdir(os.path.join(root, path.lstrip("/")))


def set_variables(process: spec.Process, environment: dict[str, str]) -> None:
    """What is said stands for what there is."""
    drop_variables(process, environment)
    said = (f"{name}={value}" for name, value in environment.items())
    process.env = [*(process.env or ()), *said]


def drop_variables(process: spec.Process, names: Container[str]) -> None:
    """As if they were not there."""
    process.env = [each for each in process.env or () if each.partition("=")[0] not in names]


def become(process: spec.Process, ids: Ids) -> None:
    """Its user; who is not root has no rights but what files give."""
    process.user = spec.User(ids.uid, ids.gid, additional_gids=list(ids.groups))
    if ids.uid:
        process.capabilities = spec.CapabilitySets(bounding=sorted(convert.CAPABILITIES))
