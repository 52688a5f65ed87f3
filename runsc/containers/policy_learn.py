"""`runsc policy learn`: from what was seen, the least policy with which it could be done again.

What was seen is lines of JSON, a fact each, as `sentry/policy` tells them while a policy learns.
Names that differ from run to run are made patterns: those of processes in /proc, of terminals, and
of files that were made in folders for such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

TEMPORARY: Final = ("/tmp/", "/var/tmp/", "/dev/shm/", "/dev/pts/")
"""Folders whose files have names of no meaning."""
MANY: Final = 8
"""So many files that were made in one folder are any."""
ALWAYS: Final = (
    "exit", "exit_group", "rt_sigreturn", "restart_syscall",
    "clock_getres", "clock_gettime", "getcpu", "gettimeofday", "time",
    "rt_sigprocmask", "rt_sigtimedwait", "wait4",
)  # fmt: skip
"""Calls that a program may have to make at any time: the vDSO makes five of them when it cannot
answer itself. The last three are what the first process of a sandbox of the API, or of a pod, waits
by (runsc/launch/pause.c): refused, it would not rest."""
POINT: Final = "sentry/policy"
MAX_LINE: Final = 1 << 20


class Fact(msgspec.Struct):
    """One thing that was done."""

    kind: str
    call: str = ""
    path: str = ""
    writes: bool = False
    creates: bool = False
    address: str = ""
    port: int = 0
    protocol: str = ""


class _Line(msgspec.Struct):
    point: str = ""
    record: dict[str, Any] = {}
    dropped: int = 0


def session(seen: str, folder: str) -> str:
    """The document of a session that writes what is learnt into a file; its path."""
    path = f"{folder}/session.json"
    sink = {"name": "json", "config": {"path": seen}}
    document = {"trace_session": {"name": "learn", "points": [{"name": POINT}], "sinks": [sink]}}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)
    return path


def facts(path: str) -> Iterator[Fact]:
    """The records of a file, which a sandbox has written. Raises: OSError, ValueError."""
    with open(path, "rb") as file:
        while line := file.readline(MAX_LINE):
            try:
                told = msgspec.convert(json.loads(line), _Line)
            except RecursionError:
                raise ValueError("what was recorded is nested too deeply") from None
            if told.dropped:
                raise ValueError(f"{told.dropped} records were lost: not all was learnt")
            if told.point == POINT:
                yield msgspec.convert(told.record, Fact)


def policy(path: str) -> str:
    """A document of TOML. Raises: OSError, ValueError."""
    calls = set(ALWAYS)
    read: set[str] = set()
    written: set[str] = set()
    made: set[str] = set()
    given: set[str] = set()
    run: set[str] = set()
    reached: dict[str, set[tuple[str, int]]] = {"connect": set(), "bind": set()}
    nameless: dict[str, set[str]] = {"connect": set(), "bind": set()}
    """Protocols of addresses that are not of IP: netlink, packets."""
    for fact in facts(path):
        kind, name = fact.kind, fact.path
        if kind == "call":
            calls.add(fact.call)
        elif kind == "exec":
            run.add(name)
        elif kind in ("open", "path"):  # a name that is given to a file is as good as written
            (written if fact.writes else read).add(name)
            if fact.creates:
                made.add(name)
            if kind == "path":
                given.add(name)
        elif kind == "address":
            on = "bind" if fact.call == "bind" else "connect"
            if fact.address:
                reached[on].add((fact.address, fact.port))
            else:
                nameless[on].add(fact.protocol)
    wide = _folders(made)
    parts = ["# Written by `runsc policy learn`: what is not here is denied."]
    parts.append(f"allowed_calls = {_list(calls)}")
    parts.append('[default]\nopen = "deny EACCES"\nexecve = "deny EACCES"\n'
                 'connect = "deny EACCES"\nbind = "deny EACCES"')  # fmt: skip
    writable = _patterns(written, wide)
    parts += _rule("open", {"path": writable})
    parts += _rule("open", {"path": _patterns(read, wide) - writable, "writes": False})
    parts += _rule("execve", {"path": _patterns(run, wide)})
    for on, targets in reached.items():
        names = {address for address, _ in targets if address[:1] in ("/", "@")}
        parts += _rule(on, {"path": _patterns(names, wide)})
        by_port: dict[int, set[str]] = {}
        for address, port in targets:
            if address not in names:
                by_port.setdefault(port, set()).add(address)
        for port, addresses in sorted(by_port.items()):
            parts += _rule(on, {"address": addresses, "port": port})
        parts += _rule(on, {"protocol": nameless[on]})
    if any(address[0] == "/" for targets in reached.values() for address, _ in targets):
        for on in ("rename", "link"):  # what may be connected to is given no name by itself
            parts += _rule(on, {"path": _patterns(given, wide)})
    return "\n\n".join(parts) + "\n"


def _rule(on: str, filters: dict[str, Any]) -> list[str]:
    if not any(filters.values()):
        return []
    lines = [f'[[rule]]\non = "{on}"']
    for key, value in filters.items():
        if isinstance(value, bool):
            lines.append(f"{key} = {str(value).lower()}")
        else:
            lines.append(f"{key} = {_list(value) if isinstance(value, set) else value}")
    return ["\n".join([*lines, 'verdict = "allow"'])]


def _folders(made: set[str]) -> set[str]:
    """Those in which any file may be made."""
    found: dict[str, int] = {}
    for path in made:
        folder = path.rpartition("/")[0] + "/"
        found[folder] = found.get(folder, 0) + 1
    return {folder for folder, count in found.items() if count >= MANY}


def _patterns(paths: set[str], wide: set[str]) -> set[str]:
    found = set()
    for name in paths:
        path = re.sub(r"[*?]", "?", name)  # a name that has them is no pattern
        folder = name.rpartition("/")[0] + "/"
        temporary = next((each for each in TEMPORARY if path.startswith(each)), None)
        if path.startswith("/proc/"):
            found.add(re.sub(r"/[0-9]+(?=/|$)", "/*", path))
        elif temporary is not None:
            found.add(f"{temporary}**")
        elif folder in wide:
            found.add(f"{path.rpartition('/')[0]}/*")
        else:
            found.add(path)
    return found


def _list(values: set[str]) -> str:
    texts = [
        json.dumps(each, ensure_ascii=False).replace("\x7f", "\\u007f") for each in sorted(values)
    ]
    return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"
